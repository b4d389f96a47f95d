//! What receivers that do not read cost the sidecars on both sides, and what is left of it when they are gone.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::raw::{Mesh, dial};
use crate::support::{CART, PATIENCE, Sidecar, eventually, free_address};

/// A whole budget, a peer's share of it is a million: two buffers, and after that small pieces.
const BUDGET: usize = 4_000_000;
const STALLED: usize = 60;
const MB: usize = 1_000_000;

/// An app that reads a byte of each connection, and then nothing if that is an `s`; else it sends back what it gets.
/// The silent ones are held until they are taken out.
fn app() -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = Arc::<Mutex<Vec<TcpStream>>>::default();
    let held = Arc::clone(&silent);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut kind = [0];
            if stream.read_exact(&mut kind).is_ok() && kind == *b"s" {
                held.lock().unwrap().push(stream);
                continue;
            }
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ended = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    (address, silent)
}

/// Opens a connection of a kind, once the app has taken the last one.
fn open(entry: SocketAddr, kind: u8) -> TcpStream {
    let mut stream = dial(entry);
    stream.write_all(&[kind]).unwrap();
    stream
}

/// Writes to all of them until nothing has been taken for half a second.
fn fill(streams: &mut [TcpStream]) {
    let bytes = vec![1; 256 * 1024];
    for stream in &mut *streams {
        stream.set_nonblocking(true).unwrap();
    }
    let (start, mut moved) = (Instant::now(), Instant::now());
    while moved.elapsed() < Duration::from_millis(500) {
        assert!(start.elapsed() < 3 * PATIENCE, "they take more and more");
        for stream in &mut *streams {
            match stream.write(&bytes) {
                Ok(count) => {
                    assert!(count > 0);
                    moved = Instant::now();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn resident(sidecar: &Sidecar) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn gauge(sidecar: &Sidecar, name: &str) -> usize {
    let page = sidecar.get("/stats/prometheus").unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {page}")).parse().unwrap()
}

/// A megabyte there and back.
fn echoed(entry: SocketAddr) {
    let mut stream = open(entry, b'e');
    let sent: Vec<u8> = (0..MB).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn({
        let sent = sent.clone();
        move || writer.write_all(&sent).unwrap()
    });
    let mut got = vec![0; MB];
    stream.read_exact(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent);
}

#[test]
fn stalled_receivers_cost_no_more_than_the_budget_and_leave_nothing_behind() {
    let mesh = Mesh::new("STRICT");
    let limits = format!("limits: {{buffers: {}KB}}\n", BUDGET / 1000);
    let (address, silent) = app();
    let (cart, inbound) = mesh.cart_with(address, &limits, |_| ());
    let entry = free_address();
    let web = format!(
        "workload: {{name: web, namespace: shop, serviceAccount: web}}\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
         outbound: {{upstreams: [{{listen: \"{entry}\", address: \"{inbound}\", mode: mtls, identities: [\"{CART}\"]}}]}}\n\
         {limits}"
    );
    let web = mesh.start("web", &web, |_| ());
    let sidecars = [&cart, &web];
    let dump = cart.get("/config_dump").unwrap();
    let dump: serde_json::Value = serde_json::from_str(dump.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&dump["limits"]["buffers"], &dump["buffers"]["held"]), (&BUDGET.into(), &0.into()));

    // What the first connections leave for good is not what is measured.
    for _ in 0..3 {
        echoed(entry);
    }
    let before = sidecars.map(resident);
    let mut stalled: Vec<TcpStream> = (0..STALLED).map(|_| open(entry, b's')).collect();
    fill(&mut stalled);
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        let (held, limited) =
            (gauge(sidecar, "portcullis_buffered_bytes"), gauge(sidecar, "portcullis_buffer_limited_connections"));
        assert!((MB / 4..=MB + STALLED * 20_000).contains(&held), "{held} bytes are held");
        assert!((STALLED * 3 / 4..=STALLED).contains(&limited), "{limited} are limited");
        let grown = resident(sidecar).saturating_sub(before);
        assert!(grown < 8 * MB, "{} grew by {grown} bytes", sidecar.log.display());
    }
    // One that reads goes on, although its peer's share is spent.
    echoed(entry);

    drop(stalled);
    // The end of a client waits behind bytes that the app does not read, so the app has to leave too.
    silent.lock().unwrap().clear();
    let gone = Instant::now();
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        eventually("all is given back", || (gauge(sidecar, "portcullis_buffered_bytes") == 0).then_some(()));
        let limited = || gauge(sidecar, "portcullis_buffer_limited_connections");
        eventually("no connection is limited", || (limited() == 0).then_some(()));
        eventually("back to the size before", || (resident(sidecar) < before + 8 * MB).then_some(()));
    }
    assert!(gone.elapsed() < Duration::from_secs(10), "{:?}", gone.elapsed());
}
