//! Log lines and metrics when TLS fails on an open connection, on either side, and when a peer does not speak TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::DerefMut;

use rustls::ConnectionCommon;

use crate::support::raw::{self, Mesh, accept, dial, read_all, tls_client, tls_server};
use crate::support::{Sidecar, eventually};

/// How a peer breaks TLS.
#[derive(Clone, Copy, Debug)]
enum Attack {
    CorruptedRecord,
    ReplayedRecord,
    FatalAlert,
}

const ATTACKS: [(Attack, &str); 3] = [
    (Attack::CorruptedRecord, "tls_bad_record"),
    (Attack::ReplayedRecord, "tls_bad_record"),
    (Attack::FatalAlert, "tls_alert"),
];

/// The records that `peer` sends for `bytes`.
fn seal<D>(peer: &mut ConnectionCommon<D>, bytes: &[u8]) -> Vec<u8> {
    peer.writer().write_all(bytes).unwrap();
    let mut records = Vec::new();
    while peer.wants_write() {
        peer.write_tls(&mut records).unwrap();
    }
    records
}

/// What `peer` puts on the wire to attack, after the receiver has got `word`.
fn attack<D>(attack: Attack, peer: &mut ConnectionCommon<D>, word: &[u8]) -> Vec<u8> {
    match attack {
        Attack::CorruptedRecord => {
            let mut record = seal(peer, word);
            *record.last_mut().unwrap() ^= 1;
            [seal(peer, b""), record].concat()
        }
        Attack::ReplayedRecord => {
            let record = seal(peer, word);
            [record.clone(), record].concat()
        }
        Attack::FatalAlert => {
            // A record that was not sealed with any key: rustls answers it with an alert.
            let garbage = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
            peer.read_tls(&mut garbage.as_slice()).unwrap();
            peer.process_new_packets().unwrap_err();
            seal(peer, b"")
        }
    }
}

/// Breaks TLS from the peer's end, and waits until the other endpoint has been reset.
fn break_tls<D>(kind: Attack, peer: &mut ConnectionCommon<D>, mut wire: &TcpStream, receiver: &TcpStream) {
    wire.write_all(&attack(kind, peer, b"more")).unwrap();
    let delivered: &[u8] = if matches!(kind, Attack::ReplayedRecord) { b"more" } else { b"" };
    assert_eq!(read_all(receiver), (delivered.to_vec(), Some(ErrorKind::ConnectionReset)), "{kind:?}");
}

/// The one access line, and the metrics, name the fault and the side that it came from.
fn reported(sidecar: &Sidecar, kind: Attack, reason: &str, side: &str, reporter: &str) {
    let line = eventually("an access line", || sidecar.access().pop());
    assert_eq!((&line["decision"], &line["reason"]), (&"deny".into(), &reason.into()), "{kind:?}: {line}");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(side), "{kind:?}: {line}");
    assert_eq!(error.contains("bad_record_mac"), matches!(kind, Attack::FatalAlert), "{kind:?}: {line}");
    assert!(!line["hint"].as_str().unwrap().contains("network"), "{line}");
    let metrics = sidecar.get("/stats/prometheus").unwrap();
    let series = |name: &str, parts: &[&str]| {
        metrics.lines().any(|line| line.starts_with(name) && parts.iter().all(|part| line.contains(part)))
    };
    assert!(series("portcullis_policy_decisions_total{", &[&format!("reason=\"{reason}\"")]), "{metrics}");
    let closed = [&format!("reporter=\"{reporter}\"")[..], "response_flags=\"TLS_FAILURE\""];
    assert!(series("istio_tcp_connections_closed_total{", &closed), "{metrics}");
}

#[test]
fn a_client_that_breaks_tls_is_reported_as_that() {
    for (kind, reason) in ATTACKS {
        let (mesh, listener) = (Mesh::new("STRICT"), TcpListener::bind("127.0.0.1:0").unwrap());
        let (cart, listen) = mesh.cart(listener.local_addr().unwrap(), |_| ());
        let mut client = tls_client(dial(listen), mesh.client().client());
        client.write_all(b"question").unwrap();
        let app = accept(&listener);
        raw::expect(&app, b"question");
        break_tls(kind, client.conn.deref_mut(), &client.sock, &app);
        reported(&cart, kind, reason, "the client", "destination");
    }
}

#[test]
fn a_server_that_breaks_tls_is_reported_as_that() {
    for (kind, reason) in ATTACKS {
        let (mesh, listener) = (Mesh::new("STRICT"), TcpListener::bind("127.0.0.1:0").unwrap());
        let (web, listen) = mesh.web(listener.local_addr().unwrap(), |_| ());
        let mut client = dial(listen);
        client.write_all(b"question").unwrap();
        let mut server = tls_server(accept(&listener), mesh.server().server());
        raw::expect(&mut server, b"question");
        break_tls(kind, server.conn.deref_mut(), &server.sock, &client);
        reported(&web, kind, reason, "the server", "source");
    }
}

/// The alert is the cause, also where the reset right behind it is noticed first.
#[test]
fn an_alert_is_not_lost_behind_a_reset() {
    let (mesh, listener) = (Mesh::new("STRICT"), TcpListener::bind("127.0.0.1:0").unwrap());
    let (web, listen) = mesh.web(listener.local_addr().unwrap(), |_| ());
    let mut client = dial(listen);
    client.write_all(b"question").unwrap();
    let mut server = tls_server(accept(&listener), mesh.server().server());
    raw::expect(&mut server, b"question");
    let alert = attack(Attack::FatalAlert, server.conn.deref_mut(), b"");
    server.sock.write_all(&alert).unwrap();
    drop(server);
    assert_eq!(read_all(&client), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    reported(&web, Attack::FatalAlert, "tls_alert", "the server", "source");
}

/// Refused by a server that speaks first or after our ClientHello, in plaintext.
fn hint_for_plaintext(greeting: &'static [u8], waits: bool) -> serde_json::Value {
    let (mesh, listener) = (Mesh::new("STRICT"), TcpListener::bind("127.0.0.1:0").unwrap());
    let (web, listen) = mesh.web(listener.local_addr().unwrap(), |_| ());
    let client = dial(listen);
    let mut server = accept(&listener);
    if waits {
        assert!(server.read(&mut [0; 4096]).unwrap() > 0);
    }
    server.write_all(greeting).unwrap();
    assert_eq!(read_all(&client), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    eventually("an access line", || web.access().pop())
}

#[test]
fn a_peer_that_answers_in_plaintext_is_named_as_that() {
    for (greeting, waits) in [
        (&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], true),
        (&b"\x4a\0\0\0\x0a8.0.36\0\x08\0\0\0"[..], false),
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], false),
    ] {
        let line = hint_for_plaintext(greeting, waits);
        assert_eq!(line["reason"], "protocol", "{line}");
        let hint = line["hint"].as_str().unwrap();
        assert!(hint.contains("DISABLE") && !hint.contains("minVersion"), "{line}");
    }
}

/// A client that waits for the server to speak first, as those of MySQL do.
fn silent(mesh: &Mesh, port: u16, app: SocketAddr, more: &str) -> serde_json::Value {
    let listen = crate::support::free_address();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         policies: policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         timeouts: {{handshake: 1s}}\n\
         inbound: {{ports: [{{listen: \"{listen}\", port: {port}, app: \"{app}\"{more}}}]}}\n"
    );
    let cart = mesh.start("cart", &body, |_| ());
    let client = dial(listen);
    let (bytes, _reset) = read_all(&client);
    assert_eq!(bytes, b"");
    let line = eventually("an access line", || cart.access().pop());
    assert_eq!(line["reason"], "silent_client", "{line}");
    line
}

#[test]
fn a_silent_client_under_strict_gets_no_server_first_hint() {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let line = silent(&Mesh::new("STRICT"), 3306, app.local_addr().unwrap(), "");
    let hint = line["hint"].as_str().unwrap();
    assert!(hint.contains("no sidecar") && !hint.contains("serverFirst"), "{line}");
}

#[test]
fn a_silent_client_under_permissive_gets_the_hint_only_where_it_applies() {
    let app = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mesh, app) = (Mesh::new("PERMISSIVE"), app.local_addr().unwrap());
    let hint = silent(&mesh, 8080, app, "")["hint"].to_string();
    assert!(hint.contains("serverFirstPorts"), "{hint}");
    let hint = silent(&mesh, 3306, app, ", protocol: server-first")["hint"].to_string();
    assert!(!hint.contains("serverFirst") && hint.contains("app"), "{hint}");
}
