//! HBONE: a real sidecar whose peer is an independent client of HTTP/2 over TLS.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::support::raw::{Mesh, identity_files};
use crate::support::{CART, PATIENCE, Sidecar, WEB, eventually, free_address};

/// The workload's port in policies, which is not the port of its listener.
const PORT: u16 = 8080;

/// A cart with a tunnel listener, before an app.
struct Scene {
    mesh: Mesh,
    cart: Sidecar,
    /// Where tunnels end.
    hbone: SocketAddr,
    /// What streams name.
    destination: SocketAddr,
    app: TcpListener,
}

impl Scene {
    async fn new(mode: &str, port: &str, more: &str) -> Self {
        let mesh = Mesh::new(mode);
        let app = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (hbone, listen) = (free_address(), free_address());
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
             policies: policies\n\
             identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
             inbound: {{hbone: \"{hbone}\", ports: [{{listen: \"{listen}\", port: {PORT}, app: \"{}\"{port}}}]}}\n{more}",
            app.local_addr().unwrap()
        );
        let cart = mesh.start("cart", &body, |_| ());
        Self { mesh, cart, hbone, destination: SocketAddr::new(hbone.ip(), PORT), app }
    }

    /// A tunnel as the web workload, offering these protocols.
    async fn tunnel(&self, alpn: &[&[u8]]) -> Result<SendRequest<Bytes>, String> {
        self.tunnel_of(WEB, alpn).await
    }

    async fn tunnel_of(&self, id: &str, alpn: &[&[u8]]) -> Result<SendRequest<Bytes>, String> {
        let peer = portcullis_testkit::RawPeer::presenting(&self.mesh.authority.workload(id));
        tunnel(self.hbone, &peer.with_alpn(alpn)).await
    }

    async fn accept(&self) -> TcpStream {
        timeout(PATIENCE, self.app.accept()).await.expect("the app is dialled").unwrap().0
    }

    /// The access line of a stream, by a field.
    fn line(&self, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually("an access line", || self.cart.access().into_iter().find(|line| fits(line)))
    }
}

async fn tunnel(to: SocketAddr, peer: &portcullis_testkit::RawPeer) -> Result<SendRequest<Bytes>, String> {
    let stream = TcpStream::connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(peer.client()));
    let name = ServerName::try_from("anything.test").unwrap();
    let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
    let (client, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            eprintln!("the tunnel ended: {error}");
        }
    });
    timeout(PATIENCE, client.ready()).await.unwrap().map_err(|error| error.to_string())
}

async fn request(
    client: &SendRequest<Bytes>,
    authority: &str,
) -> Result<(u16, RecvStream, SendStream<Bytes>), h2::Error> {
    let request = Request::builder().method(Method::CONNECT).uri(authority).body(()).unwrap();
    let (response, send) = client.clone().ready().await?.send_request(request, false)?;
    let response = timeout(PATIENCE, response).await.expect("an answer")?;
    Ok((response.status().as_u16(), response.into_body(), send))
}

/// Opens a stream that is accepted.
async fn connect(scene: &Scene, client: &SendRequest<Bytes>) -> (RecvStream, SendStream<Bytes>, TcpStream) {
    let destination = scene.destination.to_string();
    let (answer, app) = tokio::join!(request(client, &destination), scene.accept());
    let (status, recv, send) = answer.unwrap();
    assert_eq!(status, 200, "{}", scene.cart.read_log());
    (recv, send, app)
}

/// Whether there is no tunnel. In TLS 1.3 the client's handshake has ended when the server refuses.
async fn refused(tunnel: Result<SendRequest<Bytes>, String>) -> bool {
    match tunnel {
        Ok(client) => request(&client, "127.0.0.1:1").await.is_err(),
        Err(_) => true,
    }
}

async fn status(client: &SendRequest<Bytes>, authority: &str) -> u16 {
    request(client, authority).await.unwrap().0
}

async fn next(recv: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    loop {
        let bytes = timeout(PATIENCE, recv.data()).await.expect("bytes or an end");
        if let Some(Ok(bytes)) = &bytes {
            recv.flow_control().release_capacity(bytes.len()).unwrap();
            if bytes.is_empty() {
                // The frame that ends the stream.
                continue;
            }
        }
        return bytes;
    }
}

fn code(ended: Option<Result<Bytes, h2::Error>>) -> Option<Reason> {
    ended?.err()?.reason()
}

/// Both directions carry bytes.
async fn alive(recv: &mut RecvStream, send: &mut SendStream<Bytes>, app: &mut TcpStream) {
    send.send_data(Bytes::from_static(b"ping"), false).unwrap();
    let mut ping = [0; 4];
    timeout(PATIENCE, app.read_exact(&mut ping)).await.unwrap().unwrap();
    app.write_all(&ping).await.unwrap();
    assert_eq!(next(recv).await.unwrap().unwrap(), b"ping"[..]);
}

#[tokio::test]
async fn a_stream_carries_bytes_and_has_a_line_of_its_own() {
    for mode in ["STRICT", "PERMISSIVE", "DISABLE"] {
        let scene = Scene::new(mode, "", "").await;
        let client = scene.tunnel(&[b"h2"]).await.unwrap();
        let (mut recv, mut send, mut app) = connect(&scene, &client).await;
        send.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let mut received = Vec::new();
        app.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"hello");
        // The other direction is still open.
        app.write_all(b"answer").await.unwrap();
        drop(app);
        assert_eq!(next(&mut recv).await.unwrap().unwrap(), b"answer"[..]);
        assert!(next(&mut recv).await.is_none(), "a clean end");
        let line = scene.line(|line| line["dst.hbone_addr"] == scene.destination.to_string());
        assert_eq!((&line["mode"], &line["transport"]), (&mode.into(), &"mtls".into()), "{line}");
        assert_eq!(
            (&line["src.identity"], &line["dst.addr"]),
            (&WEB.into(), &scene.hbone.to_string().into()),
            "{line}"
        );
        assert_eq!((&line["bytes_recv"], &line["bytes_sent"], &line["port"]), (&5.into(), &6.into(), &PORT.into()));
        assert_eq!((&line["decision"], &line["reason"]), (&"allow".into(), &"-".into()), "{line}");
    }
}

/// What the peer says of itself is in the log, and the identity of the line is that of the certificate.
#[tokio::test]
async fn the_claims_of_a_request_are_logged() {
    let scene = Scene::new("STRICT", "", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(scene.destination.to_string())
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("baggage", "k8s.namespace.name=bank,k8s.deployment.name=vault")
        .body(())
        .unwrap();
    let (response, mut send) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
    let (response, app) = tokio::join!(response, scene.accept());
    let mut recv = response.unwrap().into_body();
    send.send_data(Bytes::new(), true).unwrap();
    drop(app);
    assert!(next(&mut recv).await.is_none(), "a clean end");
    let line = scene.line(|line| line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!((&line["src.claimed_workload"], &line["src.identity"]), (&"bank/vault".into(), &WEB.into()), "{line}");
}

#[tokio::test]
async fn a_thousand_streams_use_one_connection() {
    let scene = Scene::new("STRICT", "", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    for _ in 0..10 {
        let mut open = Vec::new();
        for _ in 0..100 {
            open.push(connect(&scene, &client).await);
        }
        for (recv, send, app) in &mut open {
            alive(recv, send, app).await;
        }
        let page = scene.cart.get("/stats/prometheus").unwrap();
        assert!(page.contains("portcullis_hbone_tunnels_open{reporter=\"destination\"} 1"), "{page}");
        assert!(page.contains("istio_tcp_sockets_open{reporter=\"destination\"} 100"), "{page}");
        for (mut recv, mut send, app) in open {
            send.send_data(Bytes::new(), true).unwrap();
            drop(app);
            assert!(next(&mut recv).await.is_none(), "a clean end");
        }
    }
    eventually("a thousand lines", || {
        (scene.cart.access().iter().filter(|line| line["reason"] == "-").count() == 1000).then_some(())
    });
    let page = scene.cart.get("/stats/prometheus").unwrap();
    assert!(page.contains("istio_tcp_sockets_open{reporter=\"destination\"} 0"), "{page}");
    assert!(page.contains("portcullis_handshake_seconds_count{reporter=\"destination\"} 1"), "one handshake: {page}");
}

#[tokio::test]
async fn resets_pass_both_ways() {
    let scene = Scene::new("STRICT", "", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let (mut other_recv, mut other_send, mut other_app) = connect(&scene, &client).await;

    let (mut recv, _send, app) = connect(&scene, &client).await;
    app.set_zero_linger().unwrap();
    drop(app);
    assert_eq!(code(next(&mut recv).await), Some(Reason::CONNECT_ERROR));

    for reason in [Reason::CONNECT_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let (_recv, mut send, mut app) = connect(&scene, &client).await;
        send.send_reset(reason);
        let error = timeout(PATIENCE, app.read(&mut [0; 4])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{reason:?}");
    }
    alive(&mut other_recv, &mut other_send, &mut other_app).await;
}

#[tokio::test]
async fn who_may_open_a_tunnel() {
    let scene = Scene::new("PERMISSIVE", "", "").await;
    for alpn in [&[b"h2".as_slice()][..], &[], &[b"istio", b"h2"]] {
        assert!(scene.tunnel(alpn).await.is_ok(), "{alpn:?}");
    }
    // Neither another protocol, nor somebody without an identity of this mesh, whatever the mode is.
    assert!(refused(scene.tunnel(&[b"istio"]).await).await);
    scene.line(|line| line["reason"] == "protocol");
    let anonymous = portcullis_testkit::RawPeer::anonymous().with_alpn(&[b"h2"]);
    assert!(refused(tunnel(scene.hbone, &anonymous).await).await);
    scene.line(|line| line["reason"] == "no_certificate");
    let stranger = portcullis_testkit::certs::Authority::root("cluster.local").workload(WEB);
    let stranger = portcullis_testkit::RawPeer::presenting(&stranger).with_alpn(&[b"h2"]);
    assert!(refused(tunnel(scene.hbone, &stranger).await).await);
    // Its root has our root's name, and another key.
    scene.line(|line| line["reason"] == "bad_certificate" || line["reason"] == "unknown_ca");
    let mut plain = TcpStream::connect(scene.hbone).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ended = timeout(PATIENCE, plain.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.len() <= 7, "an alert at most: {answer:?}");
}

#[tokio::test]
async fn a_request_for_anything_else_is_answered_with_its_status() {
    let scene = Scene::new("STRICT", "", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let own = scene.hbone.ip();
    for (authority, reason) in [
        ("192.0.2.77:8080".to_owned(), "foreign_destination"),
        ("127.0.0.1:8080".to_owned(), "foreign_destination"),
        (format!("{own}:22"), "foreign_destination"),
        (scene.hbone.to_string(), "loop"),
        (scene.cart.admin.to_string(), "loop"),
        ("cart.shop:8080".to_owned(), "bad_hbone_request"),
    ] {
        assert_eq!(status(&client, &authority).await, 400, "{authority}");
        scene.line(|line| line["reason"] == reason);
    }
    let get = Request::builder().method(Method::GET).uri(format!("http://{}/", scene.destination)).body(()).unwrap();
    let (response, _send) = client.clone().ready().await.unwrap().send_request(get, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 400);
    // Its app is gone.
    let Scene { app, destination, cart, .. } = scene;
    drop(app);
    assert_eq!(status(&client, &destination.to_string()).await, 503);
    cart.logged(&["app_unreachable"]);
}

const DENY_WEB: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: no-web, namespace: shop}\n\
     spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}], to: [{operation: {ports: [\"8080\"]}}]}]}\n";

#[tokio::test]
async fn a_policy_decides_about_each_stream_and_cuts_those_that_it_denies_later() {
    for mode in ["STRICT", "DISABLE"] {
        let scene = Scene::new(mode, "", "").await;
        let (web, pay) = (scene.tunnel(&[b"h2"]).await.unwrap(), "spiffe://cluster.local/ns/shop/sa/pay");
        let pay = scene.tunnel_of(pay, &[b"h2"]).await.unwrap();
        let (mut cut, _send, mut app) = connect(&scene, &web).await;
        let (mut recv, mut send, mut kept) = connect(&scene, &pay).await;
        let policy = scene.mesh.path().join("policies/deny.yaml");
        fs::write(&policy, DENY_WEB).unwrap();
        // The stream is reset, the app's connection too, and the tunnel stays.
        assert_eq!(code(next(&mut cut).await), Some(Reason::CONNECT_ERROR), "{mode}");
        let error = timeout(PATIENCE, app.read(&mut [0; 4])).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        scene.line(|line| line["reason"] == "policy_changed");
        alive(&mut recv, &mut send, &mut kept).await;
        assert_eq!(status(&web, &scene.destination.to_string()).await, 401);
        scene.line(|line| line["reason"] == "authorization_denied" && line["policy"] == "shop/no-web");
        fs::remove_file(policy).unwrap();
        let destination = scene.destination.to_string();
        let allowed = async {
            loop {
                let (answer, dialled) =
                    tokio::join!(request(&web, &destination), timeout(Duration::from_millis(200), scene.app.accept()));
                if answer.unwrap().0 == 200 && dialled.is_ok() {
                    return;
                }
            }
        };
        timeout(PATIENCE, allowed).await.expect("the same tunnel is allowed again");
    }
}

#[tokio::test]
async fn a_tunnel_ends_when_its_peer_is_no_longer_trusted() {
    let scene = Scene::new("STRICT", "", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let (mut recv, _send, mut app) = connect(&scene, &client).await;
    let other = portcullis_testkit::certs::Authority::root("cluster.local");
    scene.mesh.set_identity("cart", identity_files(&other, &other.workload(CART)));
    assert_eq!(code(next(&mut recv).await), Some(Reason::CONNECT_ERROR));
    assert!(timeout(PATIENCE, app.read(&mut [0; 4])).await.unwrap().is_err(), "the app sees a reset");
    scene.line(|line| line["reason"] == "trust_changed");
    assert!(request(&client, &scene.destination.to_string()).await.is_err(), "the tunnel takes no more streams");
    eventually("the tunnel is counted", || {
        let page = scene.cart.get("/stats/prometheus")?;
        let counted = "portcullis_hbone_tunnels_closed_total{reporter=\"destination\",reason=\"trust_changed\"} 1";
        (page.contains(counted) && page.contains("portcullis_hbone_tunnels_open{reporter=\"destination\"} 0"))
            .then_some(())
    });
}

#[tokio::test]
async fn a_drain_lets_streams_end_and_takes_no_new_ones() {
    let mut scene = Scene::new("STRICT", "", "drain: {grace: 20s}\n").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let (mut recv, mut send, mut app) = connect(&scene, &client).await;
    scene.cart.signal("TERM");
    // GOAWAY comes once the inbound side is closed.
    let refused = async {
        while let Ok((_, recv, send)) = request(&client, &scene.destination.to_string()).await {
            drop((recv, send, scene.accept().await));
            // Thousands of resets in a second are none of its business.
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("GOAWAY");
    alive(&mut recv, &mut send, &mut app).await;
    send.send_data(Bytes::new(), true).unwrap();
    drop(app);
    assert!(next(&mut recv).await.is_none(), "a clean end");
    drop((recv, send, client));
    let status = eventually("exit", || scene.cart.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_forced_drain_resets_streams() {
    let mut scene = Scene::new("STRICT", "", "drain: {grace: 2s}\n").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let (mut recv, _send, _app) = connect(&scene, &client).await;
    scene.cart.signal("TERM");
    assert_eq!(code(next(&mut recv).await), Some(Reason::CONNECT_ERROR));
    scene.line(|line| line["reason"] == "drain_forced");
    eventually("exit", || scene.cart.child.try_wait().unwrap());
}

#[tokio::test]
async fn limits_count_streams_and_tunnels() {
    let scene = Scene::new("STRICT", ", limit: 2", "limits: {perIdentity: 3}\n").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let open = [connect(&scene, &client).await, connect(&scene, &client).await];
    assert_eq!(status(&client, &scene.destination.to_string()).await, 503);
    scene.line(|line| line["reason"] == "too_many_on_listener");
    drop(open);
    // Tunnels of one peer have the same limit as its connections.
    let _more = [scene.tunnel(&[b"h2"]).await.unwrap(), scene.tunnel(&[b"h2"]).await.unwrap()];
    assert!(refused(scene.tunnel(&[b"h2"]).await).await, "a fourth tunnel");
    scene.line(|line| line["reason"] == "too_many_of_peer");
}

/// The header has the peer of the tunnel, and the destination of the stream.
#[tokio::test]
async fn the_app_gets_a_proxy_header() {
    let scene = Scene::new("STRICT", ", proxyProtocol: v2", "").await;
    let client = scene.tunnel(&[b"h2"]).await.unwrap();
    let (_recv, mut send, mut app) = connect(&scene, &client).await;
    send.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, app.read_to_end(&mut received)).await.unwrap().unwrap();
    let contains = |part: &[u8]| received.windows(part.len()).any(|window| window == part);
    assert!(received.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11") && received.ends_with(b"hello"), "{received:?}");
    assert!(contains(WEB.as_bytes()) && contains(&PORT.to_be_bytes()), "{received:?}");
}
