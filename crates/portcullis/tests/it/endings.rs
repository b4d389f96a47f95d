//! How connections through sidecars end: a clean end stays one, a reset stays one, and a truncated TLS stream never becomes
//! a clean end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use crate::support::raw::{self, Mesh, TlsClient, accept, dial, read_all, reset, tls_client, tls_server};
use crate::support::{Sidecar, eventually};

fn app() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A mesh client before a sidecar before an app, with a first word that has reached the app.
struct Scene {
    /// Kept for its folder, which the log is in.
    _mesh: Mesh,
    cart: Sidecar,
    client: TlsClient,
    app: TcpStream,
}

impl Scene {
    fn new() -> Self {
        let (mesh, listener) = (Mesh::new("STRICT"), app());
        let (cart, listen) = mesh.cart(listener.local_addr().unwrap(), |_| ());
        let mut client = tls_client(dial(listen), mesh.client().client());
        client.write_all(b"half a request").unwrap();
        let app = accept(&listener);
        raw::expect(&app, b"half a request");
        Self { _mesh: mesh, cart, client, app }
    }
}

/// Waits for the access line of the one connection, and compares reason and error.
fn logged(sidecar: &Sidecar, reason: &str, error: Option<&str>) {
    let line = eventually("an access line", || sidecar.access().pop());
    assert_eq!((&line["decision"], &line["reason"]), (&"allow".into(), &reason.into()), "{line}");
    assert_eq!(line["error"].as_str(), error, "{line}");
    assert_eq!(sidecar.access().len(), 1);
}

fn truncated_after_close(sidecar: &Sidecar, reporter: &str) -> bool {
    let counter = format!("portcullis_truncated_after_close_total{{reporter=\"{reporter}\"}} 1");
    sidecar.get("/stats/prometheus").unwrap().contains(&counter)
}

#[test]
fn truncation_is_not_clean_eof() {
    let Scene { _mesh, cart, client, app } = Scene::new();
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&app), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    logged(&cart, "truncated", Some("by the client"));
    assert!(!truncated_after_close(&cart, "destination"));
}

/// The same with the last words and the FIN in one go: they are delivered, and then comes the reset.
#[test]
fn what_came_before_a_truncation_is_delivered() {
    let Scene { _mesh, cart, mut client, mut app } = Scene::new();
    client.write_all(&[b'x'; 100_000]).unwrap();
    client.sock.shutdown(Shutdown::Write).unwrap();
    let mut rest = vec![0; 100_000];
    app.read_exact(&mut rest).unwrap();
    assert!(rest.iter().all(|&byte| byte == b'x'));
    assert_eq!(read_all(&app), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    logged(&cart, "truncated", Some("by the client"));
}

/// The app has ended its direction, and the client knows it: a missing close_notify loses no data.
#[test]
fn a_truncation_after_our_own_end_is_only_counted() {
    let Scene { _mesh, cart, mut client, mut app } = Scene::new();
    app.write_all(b"answer").unwrap();
    app.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), (b"answer".to_vec(), None), "ended by close_notify");
    client.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&app), (Vec::new(), None));
    logged(&cart, "-", None);
    assert!(truncated_after_close(&cart, "destination"));
}

#[test]
fn a_truncated_answer_resets_the_local_client() {
    let (mesh, listener) = (Mesh::new("STRICT"), app());
    let (web, listen) = mesh.web(listener.local_addr().unwrap(), |_| ());
    let mut client = dial(listen);
    client.write_all(b"question").unwrap();
    let mut server = tls_server(accept(&listener), mesh.server().server());
    raw::expect(&mut server, b"question");
    server.write_all(b"half an answer").unwrap();
    server.sock.shutdown(Shutdown::Write).unwrap();
    raw::expect(&client, b"half an answer");
    assert_eq!(read_all(&client), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    logged(&web, "truncated", Some("by the server"));
}

#[test]
fn a_truncated_answer_after_the_question_ended_is_only_counted() {
    let (mesh, listener) = (Mesh::new("STRICT"), app());
    let (web, listen) = mesh.web(listener.local_addr().unwrap(), |_| ());
    let mut client = dial(listen);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut server = tls_server(accept(&listener), mesh.server().server());
    assert_eq!(read_all(&mut server), (b"question".to_vec(), None), "ended by close_notify");
    server.write_all(b"answer").unwrap();
    server.sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&client), (b"answer".to_vec(), None));
    logged(&web, "-", None);
    assert!(truncated_after_close(&web, "source"));
}

#[test]
fn the_app_may_end_first_and_still_listen() {
    let Scene { _mesh, cart, mut client, app } = Scene::new();
    app.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), (Vec::new(), None), "ended by close_notify");
    client.write_all(b"later").unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_all(&app), (b"later".to_vec(), None));
    logged(&cart, "-", None);
    assert!(!truncated_after_close(&cart, "destination"));
}

#[test]
fn a_reset_of_a_mesh_client_resets_the_app() {
    let Scene { _mesh, cart, client, app } = Scene::new();
    reset(&client.sock);
    drop(client);
    assert_eq!(read_all(&app), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    logged(&cart, "reset", Some("by the client"));
}

#[test]
fn a_reset_of_the_app_resets_a_mesh_client() {
    let Scene { _mesh, cart, mut client, mut app } = Scene::new();
    app.write_all(b"half an answer").unwrap();
    raw::expect(&mut client, b"half an answer");
    reset(&app);
    drop(app);
    // Envoy sends a bare FIN here, which is at least no close_notify.
    assert_eq!(read_all(&mut client), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    logged(&cart, "reset", Some("by the server"));
}

#[test]
fn resets_of_plain_connections_are_passed_on() {
    for mode in ["DISABLE", "PERMISSIVE"] {
        for by_client in [true, false] {
            let (mesh, listener) = (Mesh::new(mode), app());
            let (cart, listen) = mesh.cart(listener.local_addr().unwrap(), |_| ());
            let mut client = dial(listen);
            client.write_all(b"before").unwrap();
            let app = accept(&listener);
            raw::expect(&app, b"before");
            let (resets, is_reset, who) = if by_client { (client, app, "client") } else { (app, client, "server") };
            reset(&resets);
            drop(resets);
            assert_eq!(read_all(&is_reset), (Vec::new(), Some(ErrorKind::ConnectionReset)), "{mode} {who}");
            logged(&cart, "reset", Some(&format!("by the {who}")));
        }
    }
}

#[test]
fn resets_pass_through_two_sidecars() {
    for by_client in [true, false] {
        let (mesh, listener) = (Mesh::new("STRICT"), app());
        let (cart, inbound) = mesh.cart(listener.local_addr().unwrap(), |_| ());
        let (web, listen) = mesh.web(inbound, |_| ());
        let mut client = dial(listen);
        client.write_all(b"before").unwrap();
        let app = accept(&listener);
        raw::expect(&app, b"before");
        let (resets, is_reset, who) = if by_client { (client, app, "client") } else { (app, client, "server") };
        reset(&resets);
        drop(resets);
        assert_eq!(read_all(&is_reset), (Vec::new(), Some(ErrorKind::ConnectionReset)), "{who}");
        for sidecar in [&cart, &web] {
            logged(sidecar, "reset", Some(&format!("by the {who}")));
        }
    }
}

#[test]
fn an_app_that_cannot_be_dialled_is_a_reset_for_the_client() {
    let mesh = Mesh::new("STRICT");
    let gone = app().local_addr().unwrap();
    let (cart, listen) = mesh.cart(gone, |_| ());
    let mut client = tls_client(dial(listen), mesh.client().client());
    // The kernel reports a reset once; that may be at the end of the handshake.
    let handshake = client.conn.complete_io(&mut client.sock).err().map(|error| error.kind());
    assert_eq!(handshake.or_else(|| read_all(&mut client).1), Some(ErrorKind::ConnectionReset));
    let line = eventually("an access line", || cart.access().pop());
    assert_eq!((&line["decision"], &line["reason"]), (&"deny".into(), &"app_unreachable".into()), "{line}");
}
