//! What plaintext clients get where mTLS is required and `inbound.httpHint` is on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::raw::{Mesh, dial, read_all};
use crate::support::{App, Sidecar, free_address};

struct Scene {
    _mesh: Mesh,
    app: App,
    cart: Sidecar,
    listen: SocketAddr,
}

fn scene(hint: &str, more: &str) -> Scene {
    let (mesh, app, listen) = (Mesh::new("STRICT"), App::start(), free_address());
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         policies: policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{}\"}}]{hint}}}\n{more}",
        app.address
    );
    let cart = Sidecar::start_with(mesh.path(), "cart", &body, |command| {
        command.args(["--log-format", "json"]);
    });
    Scene { _mesh: mesh, app, cart, listen }
}

const ON: &str = ", httpHint: true";

/// As curl reads it: head and body, which is as long as announced, before a clean end.
fn parsed((bytes, error): (Vec<u8>, Option<std::io::ErrorKind>)) -> (String, String) {
    assert_eq!(error, None, "a clean end");
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    (head.to_owned(), body.to_owned())
}

fn is_the_hint((head, body): &(String, String)) {
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    for line in ["Connection: close", "Content-Type: text/plain; charset=utf-8"] {
        assert!(head.lines().any(|found| found == line), "{line} in {head}");
    }
    assert!(head.lines().any(|line| line == format!("Content-Length: {}", body.len())), "{head}");
    assert!(body.contains("Mutual TLS is required"), "{body}");
    for secret in ["shop", "cart", "default", "STRICT", "8080", "spiffe", "portcullis"] {
        assert!(!head.contains(secret) && !body.contains(secret), "{secret} in {head}{body}");
    }
}

/// Log, metric and app are the same as without the hint.
fn is_refused(scene: &Scene, client: SocketAddr) {
    let line = scene.cart.access_of(client, scene.listen);
    let logged = (&line["message"], &line["reason"], &line["transport"], &line["policy"]);
    let expected = ("connection refused", "plaintext_in_strict", "plaintext", "shop/default");
    assert_eq!(logged, (&expected.0.into(), &expected.1.into(), &expected.2.into(), &expected.3.into()), "{line}");
    assert_eq!(scene.app.count(), 0);
    assert!(scene.cart.get("/stats/prometheus").unwrap().contains("reason=\"plaintext_in_strict\""));
}

#[test]
fn a_request_gets_the_hint_that_mutual_tls_is_required() {
    let scene = scene(ON, "");
    let mut client = dial(scene.listen);
    // Its direction stays open, as with curl.
    client.write_all(b"GET /secret HTTP/1.1\r\nHost: cart:8080\r\nAccept: */*\r\n\r\n").unwrap();
    is_the_hint(&parsed(read_all(&client)));
    let address = client.local_addr().unwrap();
    drop(client);
    is_refused(&scene, address);
}

#[test]
fn head_gets_the_head_alone() {
    let scene = scene(ON, "");
    let mut client = dial(scene.listen);
    client.write_all(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
    let (head, body) = parsed(read_all(&client));
    assert!(head.starts_with("HTTP/1.1 403") && body.is_empty(), "{head} {body}");
}

/// The client reads only when all is sent: the answer has to survive that.
#[test]
fn a_large_body_does_not_destroy_the_answer() {
    let scene = scene(ON, "");
    let mut client = dial(scene.listen);
    write!(client, "POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 20).unwrap();
    client.write_all(&vec![b'x'; 1 << 20]).unwrap();
    is_the_hint(&parsed(read_all(&client)));
    let address = client.local_addr().unwrap();
    drop(client);
    is_refused(&scene, address);
}

#[test]
fn a_line_that_comes_in_pieces_is_waited_for() {
    let scene = scene(ON, "");
    let mut client = dial(scene.listen);
    for piece in ["GE", "T /path HT", "TP/1.", "1\r", "\n"] {
        client.write_all(piece.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(30));
    }
    is_the_hint(&parsed(read_all(&client)));
}

/// What is no HTTP/1 is closed as it always was, and so is everything without the setting.
#[test]
fn only_http_1_requests_get_the_hint() {
    for (hint, payload) in [
        (ON, &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..]),
        (ON, b"EHLO client.example\r\n"),
        (ON, b"\x00\x01\x02\x03 garbage\xff\xfe\n"),
        (ON, b"GET /\r\n"),
        ("", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        (", httpHint: false", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let scene = scene(hint, "");
        let mut client = dial(scene.listen);
        let began = Instant::now();
        client.write_all(payload).unwrap();
        assert_eq!(read_all(&client).0, b"", "{}", payload.escape_ascii());
        assert!(began.elapsed() < Duration::from_secs(5), "at once, not at the deadline");
        is_refused(&scene, client.local_addr().unwrap());
    }
}

#[test]
fn a_line_that_is_never_finished_is_closed_at_the_deadline() {
    let scene = scene(ON, "timeouts: {handshake: 1s}\n");
    for ends in [false, true] {
        let mut client = dial(scene.listen);
        let began = Instant::now();
        client.write_all(b"GET /slow").unwrap();
        if ends {
            client.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(read_all(&client), (Vec::new(), None));
        let took = began.elapsed();
        assert_eq!(took < Duration::from_millis(900), ends, "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        is_refused(&scene, client.local_addr().unwrap());
    }
}

/// A client that sends on and on is cut off, whether it reads or not.
#[test]
fn the_wait_for_what_a_client_sends_is_bounded() {
    let scene = scene(ON, "");
    let mut client = dial(scene.listen);
    let began = Instant::now();
    client.write_all(b"POST / HTTP/1.1\r\n\r\n").unwrap();
    let mut sent = 0_usize;
    while client.write_all(&[b'x'; 1000]).is_ok() {
        sent += 1000;
        thread::sleep(Duration::from_millis(5));
        assert!(began.elapsed() < Duration::from_secs(8), "{sent} bytes");
    }
    assert!(began.elapsed() > Duration::from_millis(1500), "{:?}", began.elapsed());
    let _answer_or_reset = client.read(&mut [0; 1]);
    is_refused(&scene, client.local_addr().unwrap());
}
