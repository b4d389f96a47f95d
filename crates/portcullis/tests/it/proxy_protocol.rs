//! The PROXY header that an app gets where it is configured: the client's address and identity, and that a client cannot
//! forge it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use crate::support::raw::{Mesh, accept, dial, read_all, tls_client};
use crate::support::{Sidecar, WEB, free_address, free_port};

/// What an app reads, by a reader of its own.
#[derive(Debug, PartialEq)]
struct Header {
    source: SocketAddr,
    destination: SocketAddr,
    tlvs: Vec<(u8, Vec<u8>)>,
}

fn take(stream: &mut impl Read, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

fn header(app: &mut TcpStream) -> Header {
    let fixed = take(app, 16);
    assert_eq!(fixed[..13], *b"\r\n\r\n\0\r\nQUIT\n\x21", "{fixed:?}");
    let rest = take(app, usize::from(u16::from_be_bytes([fixed[14], fixed[15]])));
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let v4 = |at: usize| IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(&rest[at..at + 4]).unwrap()));
    let v6 = |at: usize| IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(&rest[at..at + 16]).unwrap()));
    let (source, destination, end) = match fixed[13] {
        0x11 => ((v4(0), port(8)), (v4(4), port(10)), 12),
        0x21 => ((v6(0), port(32)), (v6(16), port(34)), 36),
        other => panic!("family {other:#x}"),
    };
    let (mut tlvs, mut more) = (Vec::new(), &rest[end..]);
    while let [kind, high, low, behind @ ..] = more {
        let (value, behind) = behind.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, value.to_vec()));
        more = behind;
    }
    assert!(more.is_empty());
    Header { source: source.into(), destination: destination.into(), tlvs }
}

fn app() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn cart(mesh: &Mesh, listen: SocketAddr, app: &TcpListener) -> Sidecar {
    cart_with(mesh, listen, app, "")
}

/// The same with more in `inbound`.
fn cart_with(mesh: &Mesh, listen: SocketAddr, app: &TcpListener, more: &str) -> Sidecar {
    let app = app.local_addr().unwrap();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         policies: policies\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{app}\", proxyProtocol: v2}}]{more}}}\n"
    );
    Sidecar::start_with(mesh.path(), "cart", &body, |command| {
        command.args(["--log-format", "json"]);
    })
}

/// The header of a connection that says nothing about identity.
fn unidentified(client: &TcpStream) -> Header {
    Header { source: client.local_addr().unwrap(), destination: client.peer_addr().unwrap(), tlvs: Vec::new() }
}

#[test]
fn an_authenticated_peer_is_named_and_its_bytes_follow() {
    let (mesh, listener, listen) = (Mesh::new("STRICT"), app(), free_address());
    let cart = cart(&mesh, listen, &listener);
    let mut client = tls_client(dial(listen), mesh.client().client());
    client.write_all(b"hello").unwrap();
    let mut app = accept(&listener);
    let received = header(&mut app);
    let ssl = b"\x07\0\0\0\0\x21\x00\x07TLSv1.3".to_vec();
    let tlvs = vec![(0x20, ssl), (0xe5, WEB.as_bytes().to_vec())];
    assert_eq!(received, Header { tlvs, ..unidentified(&client.sock) });
    assert_eq!(take(&mut app, 5), b"hello");
    app.write_all(b"answer").unwrap();
    assert_eq!(take(&mut client, 6), b"answer");
    client.conn.send_close_notify();
    client.flush().unwrap();
    drop(app);
    // The header is ours, and no byte of the client's.
    assert_eq!(cart.access_of(client.sock.local_addr().unwrap(), listen)["bytes_recv"], 5);
}

/// Plaintext under PERMISSIVE and DISABLE, and TLS that is passed through or not looked at.
#[test]
fn without_an_identity_nothing_is_said_about_one() {
    let hello = {
        let mesh = Mesh::new("STRICT");
        let mut foreign = rustls::ClientConnection::new(
            std::sync::Arc::new(mesh.client().with_alpn(&[b"h2"]).client()),
            rustls_pki_types::ServerName::try_from("elsewhere.test").unwrap(),
        )
        .unwrap();
        let mut bytes = Vec::new();
        foreign.write_tls(&mut bytes).unwrap();
        bytes
    };
    for (mode, payload) in [
        ("PERMISSIVE", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("PERMISSIVE", &hello),
        ("DISABLE", b"anything"),
        ("DISABLE", &hello),
    ] {
        let (mesh, listener, listen) = (Mesh::new(mode), app(), free_address());
        let _cart = cart(&mesh, listen, &listener);
        let mut client = dial(listen);
        client.write_all(payload).unwrap();
        let mut app = accept(&listener);
        assert_eq!(header(&mut app), unidentified(&client), "{mode}");
        assert_eq!(take(&mut app, payload.len()), payload);
    }
}

/// A client that sends a header names whomever it likes; the app reads ours, and the other one is payload.
#[test]
fn a_forged_header_is_payload_behind_ours() {
    let forged = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x31\x0a\0\0\x01\x0a\0\0\x02\0\x01\0\x02\
                   \x20\x00\x05\x07\0\0\0\0\xe5\x00\x1aspiffe://cluster.local/adm";
    for mode in ["PERMISSIVE", "DISABLE"] {
        let (mesh, listener, listen) = (Mesh::new(mode), app(), free_address());
        let _cart = cart(&mesh, listen, &listener);
        let mut client = dial(listen);
        client.write_all(forged).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut app = accept(&listener);
        assert_eq!(header(&mut app), unidentified(&client), "{mode}");
        assert_eq!(read_all(&app), (forged.to_vec(), None));
    }
    let (mesh, listener, listen) = (Mesh::new("STRICT"), app(), free_address());
    let _cart = cart(&mesh, listen, &listener);
    let mut client = tls_client(dial(listen), mesh.client().client());
    client.write_all(forged).unwrap();
    let mut app = accept(&listener);
    assert_eq!(header(&mut app).tlvs[1], (0xe5, WEB.as_bytes().to_vec()));
    assert_eq!(take(&mut app, forged.len()), forged);
}

/// As apps behind Istio's ambient mesh read it.
#[test]
fn the_identity_has_the_type_that_is_configured() {
    let (mesh, listener, listen) = (Mesh::new("STRICT"), app(), free_address());
    let _cart = cart_with(&mesh, listen, &listener, ", proxyProtocolIdentity: ztunnel");
    let mut client = tls_client(dial(listen), mesh.client().client());
    client.write_all(b"x").unwrap();
    let received = header(&mut accept(&listener)).tlvs;
    assert_eq!((received.len(), &received[1]), (2, &(0xd0, WEB.as_bytes().to_vec())));
}

#[test]
fn ipv6_is_ipv6_and_a_mapped_client_is_one_of_ipv4() {
    let Ok(probe) = TcpListener::bind("[::]:0") else {
        eprintln!("skipped: this system has no IPv6");
        return;
    };
    drop(probe);
    let (mesh, listener, port) = (Mesh::new("PERMISSIVE"), app(), free_port());
    let _cart = cart(&mesh, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), &listener);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let mut client = dial(SocketAddr::new(ip, port));
        client.write_all(b"hello").unwrap();
        let mut app = accept(&listener);
        assert_eq!(header(&mut app), unidentified(&client));
        assert_eq!(take(&mut app, 5), b"hello");
    }
}

#[test]
fn who_was_not_let_through_is_not_announced() {
    let (mesh, listener, listen) = (Mesh::new("STRICT"), app(), free_address());
    let cart = cart(&mesh, listen, &listener);
    let mut client = dial(listen);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    read_all(&client);
    cart.access_of(client.local_addr().unwrap(), listen);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err());
}
