//! HBONE, outbound: a real sidecar whose peer the test plays, frame by frame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::raw::{Mesh, TlsServer, accept, alive, dial, expect, read_all, tls_server};
use crate::support::{CART, Sidecar, eventually, free_address};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

/// A web whose cart is the test.
struct Scene {
    mesh: Mesh,
    web: Sidecar,
    /// What the client's app dials.
    listen: SocketAddr,
    /// Where tunnels arrive.
    tunnels: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let (mesh, tunnels, listen) = (Mesh::new("STRICT"), TcpListener::bind("127.0.0.1:0").unwrap(), free_address());
        let port = tunnels.local_addr().unwrap().port();
        let body = format!(
            "workload: {{name: web, namespace: shop, serviceAccount: web}}\n\
             identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
             outbound:\n  hbonePort: {port}\n  upstreams: [{{listen: \"{listen}\", address: \"127.0.0.1:8080\", mode: hbone, identities: [\"{CART}\"]}}]\n"
        );
        let web = mesh.start("web", &body, |_| ());
        Self { mesh, web, listen, tunnels }
    }

    /// The next tunnel, which has sent its settings.
    fn tunnel(&self) -> Tunnel {
        let config = self.mesh.server().with_alpn(&[b"h2"]).server();
        let mut tunnel = Tunnel(tls_server(accept(&self.tunnels), config));
        expect(&mut tunnel.0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        tunnel.send(SETTINGS, 0, 0, &[]);
        tunnel
    }

    /// Another tunnel has not been asked for.
    fn has_no_other_tunnel(&self) -> bool {
        self.tunnels.set_nonblocking(true).unwrap();
        self.tunnels.accept().is_err()
    }

    fn line(&self, reason: &str) -> serde_json::Value {
        eventually(reason, || self.web.access().into_iter().find(|line| line["reason"] == reason))
    }
}

/// The server's end of a tunnel.
struct Tunnel(TlsServer);

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Tunnel {
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).unwrap();
        self.0.flush().unwrap();
    }

    /// The next frame about a stream; those about the connection are answered.
    fn next(&mut self) -> Frame {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let [a, b, c, kind, flags, w, x, y, z] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.0.read_exact(&mut payload).unwrap();
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                DATA | HEADERS | RST_STREAM => {
                    return Frame { kind, stream: u32::from_be_bytes([w, x, y, z]), payload };
                }
                _ => {}
            }
        }
    }

    /// The stream of the next request. Before it may come the end of an earlier one.
    fn request(&mut self) -> u32 {
        loop {
            let frame = self.next();
            if frame.kind == HEADERS {
                return frame.stream;
            }
        }
    }

    /// Answers with 200, which is number 8 of HPACK's static table.
    fn accept(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, &[0x88]);
    }

    /// Sends back the next bytes.
    fn echo(&mut self, stream: u32) {
        let frame = self.next();
        assert_eq!((frame.kind, frame.stream, frame.payload.as_slice()), (DATA, stream, b"ping".as_slice()));
        self.send(DATA, 0, stream, &frame.payload);
    }

    fn go_away(&mut self, last: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat());
    }
}

/// An app whose bytes come back.
fn client(scene: &Scene) -> thread::JoinHandle<TcpStream> {
    let listen = scene.listen;
    thread::spawn(move || {
        let mut stream = dial(listen);
        alive(&mut stream);
        stream
    })
}

#[test]
fn a_stream_above_the_last_of_a_goaway_goes_on_another_tunnel_and_the_others_stay() {
    let scene = Scene::new();
    let first = client(&scene);
    let mut old = scene.tunnel();
    assert_eq!(old.request(), 1);
    old.accept(1);
    old.echo(1);
    let mut first = first.join().unwrap();
    let second = client(&scene);
    assert_eq!(old.request(), 3);
    old.go_away(1);
    let mut new = scene.tunnel();
    assert_eq!(new.request(), 1);
    new.accept(1);
    new.echo(1);
    second.join().unwrap();
    // The stream that was looked at has lost nothing.
    first.write_all(b"ping").unwrap();
    old.echo(1);
    expect(&mut first, b"ping");
    assert!(scene.has_no_other_tunnel());
}

#[test]
fn a_stream_that_is_refused_unseen_goes_on_another_tunnel_once() {
    let scene = Scene::new();
    let app = client(&scene);
    let mut old = scene.tunnel();
    let stream = old.request();
    old.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes());
    let mut new = scene.tunnel();
    let stream = new.request();
    new.accept(stream);
    new.echo(stream);
    app.join().unwrap();

    // A peer that refuses again is not asked a third time.
    let mut app = dial(scene.listen);
    app.write_all(b"ping").unwrap();
    let stream = new.request();
    new.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes());
    let mut third = scene.tunnel();
    let stream = third.request();
    third.send(RST_STREAM, 0, stream, &REFUSED_STREAM.to_be_bytes());
    assert!(read_all(&app).1.is_some(), "a reset");
    scene.line("hbone_failed");
    assert!(scene.has_no_other_tunnel());
}

/// The peer may have reached its app: the request is not repeated.
#[test]
fn a_stream_that_the_peer_has_looked_at_is_never_opened_twice() {
    for ending in ["a goaway that covers it", "the connection lost", "another reset"] {
        let scene = Scene::new();
        let mut app = dial(scene.listen);
        app.write_all(b"ping").unwrap();
        let mut tunnel = scene.tunnel();
        let stream = tunnel.request();
        match ending {
            "a goaway that covers it" => tunnel.go_away(stream),
            "another reset" => tunnel.send(RST_STREAM, 0, stream, &2_u32.to_be_bytes()),
            _ => {}
        }
        if ending != "another reset" {
            drop(tunnel);
        }
        assert!(read_all(&app).1.is_some(), "{ending}: a reset");
        scene.line("hbone_failed");
        assert!(scene.has_no_other_tunnel(), "{ending}");
    }
}

/// Fifteen connections at once to a peer that closes after a while: they wait for one dial, and fail with it.
#[test]
fn a_burst_to_a_dead_peer_waits_for_one_dial() {
    let scene = Scene::new();
    let (dials, count) = (scene.tunnels.try_clone().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    thread::spawn(move || {
        for stream in dials.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            // All connections of the burst are there by then.
            thread::sleep(Duration::from_secs(1));
            drop(stream);
        }
    });
    let apps: Vec<_> = (0..15).map(|_| dial(scene.listen)).collect();
    for app in &apps {
        assert!(read_all(app).1.is_some(), "a reset");
    }
    let dials = count.load(Ordering::SeqCst);
    assert!(dials <= 2, "{dials} dials");
    let lines = eventually("a line for each", || Some(scene.web.access()).filter(|lines| lines.len() == apps.len()));
    assert!(lines.iter().all(|line| line["reason"] == lines[0]["reason"] && line["decision"] == "deny"), "{lines:?}");
}
