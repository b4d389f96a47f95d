//! Log output: formats of the access log, log readers that go away, and text chosen by peers.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{path::Path, thread};

use crate::support::raw::{Mesh, dial, read_all, tls_client};
use crate::support::{App, Sidecar, ask, eventually, passed};
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{Profile, San};

/// Processor time that a process has used, in ticks of 10 ms.
fn ticks(sidecar: &Sidecar) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", sidecar.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Traffic goes on, nothing is said elsewhere, and nothing spins.
fn nobody_is_hurt(sidecar: &mut Sidecar, inbound: SocketAddr, errors: &Path) {
    for n in 0..30 {
        assert!(passed(inbound, format!("payload {n}").as_bytes()), "{n}");
    }
    let before = ticks(sidecar);
    thread::sleep(Duration::from_secs(1));
    let used = ticks(sidecar) - before;
    assert!(used < 30, "{used} ticks in an idle second");
    assert!(passed(inbound, b"still there"));
    assert!(sidecar.child.try_wait().unwrap().is_none());
    assert_eq!(fs::read_to_string(errors).unwrap(), "");
}

#[test]
fn log_reader_gone() {
    for form in ["ztunnel", "envoy"] {
        let mesh = Mesh::new("PERMISSIVE");
        let errors = mesh.path().join("cart.err");
        let stderr = File::create(&errors).unwrap();
        let app = App::start();
        let (mut cart, inbound) = mesh.cart(app.address, |command: &mut Command| {
            command.args(["--access-log", form]).stdout(Stdio::piped()).stderr(stderr);
        });
        let mut reader = BufReader::new(cart.child.stdout.take().unwrap());
        let mut first = String::new();
        reader.read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        drop(reader);
        nobody_is_hurt(&mut cart, inbound, &errors);
    }
}

#[test]
fn log_device_full() {
    for form in ["ztunnel", "envoy-json"] {
        let mesh = Mesh::new("PERMISSIVE");
        let errors = mesh.path().join("cart.err");
        let stderr = File::create(&errors).unwrap();
        let app = App::start();
        let (mut cart, inbound) = mesh.cart(app.address, |command: &mut Command| {
            let full = File::options().write(true).open("/dev/full").unwrap();
            command.args(["--access-log", form]).stdout(full).stderr(stderr);
        });
        nobody_is_hurt(&mut cart, inbound, &errors);
    }
}

fn with_access_log(mesh: &Mesh, form: &'static str) -> (Sidecar, SocketAddr, App) {
    let app = App::start();
    let (cart, inbound) = mesh.cart(app.address, |command: &mut Command| {
        command.args(["--access-log", form]);
    });
    (cart, inbound, app)
}

#[test]
fn envoy_lines_are_those_that_people_grep_for() {
    let mesh = Mesh::new("STRICT");
    let (cart, inbound, app) = with_access_log(&mesh, "envoy");
    assert!(!passed(inbound, b"plaintext"));
    let refused = cart.logged(&[" 0 NR filter_chain_not_found - \"-\" 0 0 "]);
    assert!(refused.starts_with("[20") && refused.contains("Z] \"- - -\" 0 NR "), "{refused}");
    assert!(refused.contains(&format!(" - \"-\" \"-\" \"-\" \"-\" \"-\" - - {inbound} 127.0.0.1:")), "{refused}");

    let mut client = tls_client(dial(inbound), mesh.client().client());
    client.write_all(b"hello").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_all(&mut client).0, b"got:hello");
    let admitted = cart.logged(&["\"- - -\" 0 - - - \"-\" 5 9 ", "inbound|8080||"]);
    assert!(admitted.contains(&format!("\"{}\" inbound|8080|| - {inbound} 127.0.0.1:", app.address)), "{admitted}");
    assert!(cart.access().is_empty(), "no other access lines besides");
}

#[test]
fn envoy_json_is_one_object_a_line_and_off_is_none() {
    let mesh = Mesh::new("STRICT");
    let (cart, inbound, _app) = with_access_log(&mesh, "envoy-json");
    assert!(!passed(inbound, b"plaintext"));
    let line = cart.logged(&["response_code_details"]);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["response_flags"], &line["response_code_details"]),
        (&"NR".into(), &"filter_chain_not_found".into())
    );
    assert_eq!(line["downstream_local_address"], inbound.to_string());

    let (cart, inbound, _app) = with_access_log(&mesh, "off");
    // The last one of the start; lines are gathered before they are written.
    cart.logged(&["inbound port"]);
    let before = cart.read_log();
    assert!(!passed(inbound, b"plaintext"));
    eventually("its end", || cart.get("/stats/prometheus")?.contains("reason=\"plaintext_in_strict\"").then_some(()));
    assert_eq!(cart.read_log(), before);
}

/// Text that a malicious peer would inject into a log or a terminal.
const EVIL: &str = "\n2026-01-01T00:00:00.000000Z  INFO access: forged=\"yes\" \u{1b}[31m\u{9b}31m\r\t\\\"";

/// A hello of TLS 1.2 form with this server name and one ALPN name.
fn hello(server_name: &[u8], alpn: &[u8]) -> Vec<u8> {
    fn vector(bytes: &[u8], width: usize) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[4 - width..], bytes].concat()
    }
    let name = vector(&[&[0_u8][..], &vector(server_name, 2)].concat(), 2);
    let names = vector(&vector(alpn, 1), 2);
    let extensions = [&[0_u8, 0][..], &vector(&name, 2), &[0, 16], &vector(&names, 2)].concat();
    let body = [&[3_u8, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &vector(&extensions, 2)].concat();
    let message = [&[1_u8][..], &vector(&body, 3)].concat();
    [&[0x16_u8, 3, 1][..], &vector(&message, 2)].concat()
}

fn answer(admin: SocketAddr, request: &str) -> Vec<u8> {
    let mut stream = dial(admin);
    stream.write_all(request.as_bytes()).unwrap();
    read_all(&stream).0
}

/// Whatever peers choose is in the log as text, and never as a line or as a command to a terminal.
#[test]
fn log_injection_escaped() {
    for format in ["text", "json"] {
        let mesh = Mesh::new("PERMISSIVE");
        let app = App::start();
        let (cart, inbound) = mesh.cart(app.address, |command: &mut Command| {
            command.args(["--log-format", format, "--log-level", "trace"]);
        });
        for (name, alpn) in
            [(EVIL.as_bytes(), b"h2" as &[u8]), (b"cart.shop", EVIL.as_bytes()), (EVIL.as_bytes(), b"istio")]
        {
            let _whatever = ask(inbound, &hello(name, alpn));
        }
        let _plain = ask(inbound, EVIL.as_bytes());
        let id = format!("spiffe://cluster.local/ns/shop/sa/web{EVIL}");
        for profile in [
            Profile { subject: format!("CN=web{EVIL}"), ..Profile::leaf(crate::support::WEB) },
            Profile { sans: Some(vec![San::uri(&id)]), ..Profile::leaf(crate::support::WEB) },
        ] {
            let peer = RawPeer::presenting(&mesh.authority.issue(&profile)).with_alpn(&[b"istio"]);
            let mut client = tls_client(dial(inbound), peer.client());
            let _whatever = client.write_all(b"hello");
            client.conn.send_close_notify();
            let _whatever = client.flush();
            let _whatever = read_all(&mut client);
        }
        let admin = "POST /logging?level=%0a%1b[31m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(answer(cart.admin, admin).starts_with(b"HTTP/1.1 400 "));
        let refused = "POST /quitquitquit?%0a%1b[31m HTTP/1.1\r\nHost: \x1b[31m\r\nConnection: close\r\n\r\n";
        let _whatever = answer(cart.admin, refused);
        assert!(passed(inbound, b"the last one"));
        // A connection's line is written once both of its ends have closed, which may be after the client has seen the end.
        eventually("the lines of all connections", || (cart.read_log().matches("conn_id").count() >= 7).then_some(()));

        let log = fs::read(&cart.log).unwrap();
        let log = String::from_utf8(log).unwrap();
        let controls: Vec<_> = log.chars().filter(|c| c.is_control() && *c != '\n').collect();
        assert!(controls.is_empty(), "{controls:?} in {log}");
        for line in log.lines() {
            if format == "json" {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(line.get("forged").is_none() && line["timestamp"] != "2026-01-01T00:00:00.000000Z", "{line}");
            } else {
                assert!(line.starts_with("20") && !line.starts_with("2026-01-01T00"), "{line}");
                assert!(!line.contains("INFO access: forged"), "{line}");
            }
        }
        let lines = log.matches("conn_id").count();
        assert_eq!(lines, 7, "one line for each connection: {log}");
    }
}

/// A reader that is there and does not read. The pipe fills, and the data plane goes on; what does not fit is counted.
#[test]
fn log_reader_stalls() {
    let mesh = Mesh::new("STRICT");
    let (reader, writer) = std::io::pipe().unwrap();
    let app = App::start();
    let (mut cart, inbound) = mesh.cart(app.address, |command| {
        // At this level no line is held back.
        command.args(["--log-level", "info,access=debug"]).stdout(writer);
    });
    // Each is refused, with a line of half a kilobyte: more than the pipe and the queue hold together.
    for _ in 0..6000 {
        let _refused = std::net::TcpStream::connect(inbound).and_then(|mut stream| stream.write_all(b"GET /"));
    }
    let mut client = tls_client(dial(inbound), mesh.client().client());
    client.write_all(b"still there?").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    let mut answer = Vec::new();
    let _ended = client.read_to_end(&mut answer);
    assert_eq!(answer, b"got:still there?");
    eventually("dropped lines are counted", || {
        let page = cart.get("/stats/prometheus")?;
        let line = page.lines().find(|line| line.starts_with("portcullis_log_lines_dropped_total "))?;
        (!line.ends_with(" 0")).then_some(())
    });
    cart.signal("TERM");
    let status = eventually("exit", || cart.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    drop(reader);
}

/// A client that is refused often cannot flood the log: suppressed lines are reported, and every refusal is counted.
#[test]
fn a_flood_of_refusals_is_logged_in_few_lines() {
    const FLOOD: usize = 400;
    for (level, all) in [("info", false), ("info,access=debug", true)] {
        let mesh = Mesh::new("STRICT");
        let (cart, inbound) = mesh.cart(App::start().address, |command: &mut Command| {
            command.args(["--log-level", level]);
        });
        assert!(!passed(inbound, b"plaintext"));
        let began = std::time::Instant::now();
        for _ in 1..FLOOD {
            assert!(!passed(inbound, b"plaintext"));
        }
        let seconds = began.elapsed().as_secs() + 2;
        let (mut written, mut held_back) = (0, 0);
        eventually("every refusal is accounted for", || {
            let lines = cart.access();
            held_back = lines.iter().filter_map(|line| line["suppressed"].as_u64()).sum();
            written = lines.iter().filter(|line| line["message"] == "connection refused").count();
            (u64::try_from(written).unwrap() + held_back == u64::try_from(FLOOD).unwrap()).then_some(())
        });
        assert_eq!(all, held_back == 0, "{written} written, {held_back} held back in {seconds} s");
        assert!(all || written <= 20 * usize::try_from(seconds).unwrap(), "{written} written in {seconds} s");
        let counted = format!("portcullis_no_mtls_reason_total{{reason=\"plaintext_in_strict\"}} {FLOOD}\n");
        assert!(cart.get("/stats/prometheus").unwrap().contains(&counted));
    }
}
