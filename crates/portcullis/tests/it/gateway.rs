//! The gateway role: clients outside of the mesh, plaintext or TLS with certificates from files, reach a STRICT workload through a
//! sidecar with gateway listeners.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use portcullis_testkit::RawPeer;
use portcullis_testkit::apps::echo;
use portcullis_testkit::certs::{Authority, Issued, Profile, San};
use rustls::{AlertDescription, ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use crate::support::raw::{Mesh, alive, dial, patient, read_all};
use crate::support::{App, CART, Sidecar, WEB, ask, eventually, free_address, passed, run};

const SHOP: &str = "shop.example.com";
/// Addresses for documentation, which no test can have.
const CLIENT: &str = "203.0.113.9:4711";
const OTHER: &str = "192.0.2.1:4712";

/// A mesh with a STRICT cart, a CA of the web, and what a gateway before the cart needs.
struct Scene {
    mesh: Mesh,
    web: Authority,
    app: App,
    cart: Sidecar,
    inbound: SocketAddr,
}

impl Scene {
    fn new() -> Self {
        Self::before(App::start())
    }

    fn before(app: App) -> Self {
        let mesh = Mesh::new("STRICT");
        let (cart, inbound) = mesh.cart(app.address, |_| ());
        let web = Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", "CN=a CA of the web") });
        fs::create_dir(mesh.path().join("certs")).unwrap();
        let scene = Self { mesh, web, app, cart, inbound };
        scene.certificate("shop", &[SHOP]);
        scene
    }

    fn issue(&self, names: &[&str], usage: &'static str) -> Issued {
        let sans = names.iter().map(|name| San::Dns((*name).to_owned())).collect();
        let usage = Some(vec![usage]);
        self.web.issue(&Profile {
            sans: Some(sans),
            san_critical: false,
            extended_key_usage: usage,
            ..Profile::leaf("unused")
        })
    }

    /// Puts a certificate for these names into `certs`, file by file, by rename. Returns it.
    fn certificate(&self, file: &str, names: &[&str]) -> CertificateDer<'static> {
        let issued = self.issue(names, Profile::SERVER_AUTH);
        for (kind, content) in [("key", issued.key_pem()), ("pem", issued.cert_pem())] {
            let draft = self.mesh.path().join("certs/.draft");
            fs::write(&draft, content).unwrap();
            fs::rename(draft, self.mesh.path().join(format!("certs/{file}.{kind}"))).unwrap();
        }
        issued.chain[0].clone()
    }

    /// A route to the cart.
    fn to_cart(&self) -> String {
        format!("address: \"{}\", mode: mtls, identities: [\"{CART}\"]", self.inbound)
    }

    /// A sidecar with one gateway listener.
    fn gateway(&self, listener: &str) -> (Sidecar, SocketAddr) {
        self.gateway_with(listener, "")
    }

    /// The same, with more lines in its configuration.
    fn gateway_with(&self, listener: &str, more: &str) -> (Sidecar, SocketAddr) {
        let listen = free_address();
        let body = format!(
            "workload: {{name: gateway, namespace: shop, serviceAccount: web, labels: {{app: gateway}}}}\n\
             policies: policies\n\
             identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
             gateway:\n  listeners:\n    - {{listen: \"{listen}\", {listener}}}\n{more}"
        );
        (self.mesh.start("gateway", &body, |_| ()), listen)
    }

    fn simple(&self) -> String {
        format!("tls: {{mode: SIMPLE, certificates: [{}]}}, routes: [{{{}}}]", pair("shop", SHOP), self.to_cart())
    }

    /// A client that trusts the CA of the web.
    fn client(&self) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.web.root_der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(roots).with_no_client_auth()
    }

    fn policy(&self, name: &str, spec: &str) {
        self.put("AuthorizationPolicy", name, "", spec);
    }

    fn put(&self, kind: &str, name: &str, annotations: &str, spec: &str) {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop{annotations}}}\n\
             spec: {{selector: {{matchLabels: {{app: gateway}}}}, {spec}}}\n"
        );
        fs::write(self.mesh.path().join("policies/.draft"), text).unwrap();
        fs::rename(self.mesh.path().join("policies/.draft"), self.mesh.path().join(format!("policies/{name}.yaml")))
            .unwrap();
    }
}

/// An entry of `tls.certificates`.
fn pair(file: &str, host: &str) -> String {
    format!("{{hosts: [\"{host}\"], certificate: certs/{file}.pem, privateKey: certs/{file}.key}}")
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

fn secure(stream: TcpStream, config: ClientConfig, name: &str) -> Tls {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
}

/// As [`ask`], over TLS: the certificate that was presented.
fn ask_tls(stream: TcpStream, config: ClientConfig, name: &str) -> io::Result<CertificateDer<'static>> {
    let mut tls = secure(patient(stream), config, name);
    let sent = tls.write_all(b"hello").and_then(|()| {
        tls.conn.send_close_notify();
        tls.flush()
    });
    if let Err(error) = sent {
        // An alert came before the reset, and says why. A read of the stream would try to write first.
        let _received = tls.conn.read_tls(&mut tls.sock);
        tls.conn.process_new_packets().map_err(io::Error::other)?;
        return Err(error);
    }
    let mut answer = Vec::new();
    tls.read_to_end(&mut answer)?;
    assert_eq!(answer, b"got:hello");
    Ok(tls.conn.peer_certificates().unwrap()[0].clone())
}

fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

/// The access line with this reason.
fn line(sidecar: &Sidecar, reason: &str) -> Value {
    eventually(&format!("a line with {reason}"), || sidecar.access().into_iter().find(|line| line["reason"] == reason))
}

/// What a load balancer sends first.
fn v1(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    format!("PROXY TCP4 {} 198.51.100.2 {} 443\r\n", client.ip(), client.port()).into_bytes()
}

fn v2(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    portcullis_wire::proxy_v2::header(client, "198.51.100.2:443".parse().unwrap(), None).unwrap()
}

/// A connection from another address of this host.
fn dial_from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    patient(socket.into())
}

/// Nothing came, and it was reset.
fn refused(stream: &mut impl Read) {
    let (bytes, error) = read_all(stream);
    assert!(bytes.is_empty() && error == Some(ErrorKind::ConnectionReset), "{bytes:?} {error:?}");
}

#[test]
fn plaintext_outside_is_mtls_inside() {
    let scene = Scene::new();
    let (gateway, listen) = scene.gateway(&format!("routes: [{{{}}}]", scene.to_cart()));
    // PeerAuthentication is STRICT for the gateway too, and does not apply to this listener.
    assert!(passed(listen, b"hello"));
    let seen = eventually("the line of the cart", || scene.cart.access().into_iter().next());
    assert_eq!((&seen["src.identity"], &seen["transport"]), (&WEB.into(), &"mtls".into()), "{seen}");
    let ours = line(&gateway, "-");
    assert_eq!((&ours["direction"], &ours["dst.identity"]), (&"outbound".into(), &CART.into()), "{ours}");
    assert!(ours["src.addr"].as_str().unwrap().starts_with("127.") && ours["src.relayed_by"].is_null(), "{ours}");
    assert_eq!(ours["port"], listen.port(), "{ours}");
    // The cart itself still refuses them.
    assert!(!passed(scene.inbound, b"hello"));
    let dump = gateway.get("/config_dump").unwrap();
    assert!(dump.contains(&listen.to_string()) && dump.contains("\"gateway\""), "{dump}");
}

#[test]
fn the_server_name_chooses_certificate_and_route() {
    let scene = Scene::new();
    let (other, all) = (App::start(), scene.certificate("all", &["*.example.org"]));
    let (gateway, listen) = scene.gateway(&format!(
        "tls: {{mode: SIMPLE, certificates: [{}, {}]}}, routes: [{{hosts: [{SHOP}], {}}}, \
         {{hosts: [a.example.org], address: \"{}\", mode: plaintext}}]",
        pair("shop", SHOP),
        pair("all", "*.example.org"),
        scene.to_cart(),
        other.address,
    ));
    let shop = ask_tls(dial(listen), scene.client(), SHOP).unwrap();
    assert_eq!((scene.app.count(), other.count()), (1, 0));
    assert_eq!(ask_tls(dial(listen), scene.client(), "A.example.org").unwrap(), all);
    assert_eq!((scene.app.count(), other.count()), (1, 1));
    assert_ne!(shop, all);

    let error = ask_tls(dial(listen), scene.client(), "example.net").unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
    assert!(line(&gateway, "unknown_server_name")["error"].as_str().unwrap().contains("example.net"));
    // Without a name there is no certificate either.
    let error = ask_tls(dial(listen), scene.client(), "127.0.0.1").unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::UnrecognisedName), "{error}");
    // A certificate, and no route.
    ask_tls(dial(listen), scene.client(), "b.example.org").unwrap_err();
    assert_eq!(line(&gateway, "no_gateway_route")["sni"], "b.example.org");
    assert!(!passed(listen, b"GET / HTTP/1.1\r\n\r\n"));
    assert!(line(&gateway, "plaintext_at_gateway")["hint"].as_str().unwrap().contains("plaintext"));
    assert_eq!((scene.app.count(), other.count()), (1, 1), "nothing refused reached an app");
}

#[test]
fn certificates_are_replaced_under_load_without_a_lost_connection() {
    let scene = Arc::new(Scene::before(App::start()));
    let (gateway, listen) = scene.gateway(&scene.simple());
    let (stop, done, failed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let result = ask_tls(dial(listen), scene.client(), SHOP);
                    let counter = if result.is_ok() { &done } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..3 {
            let new = scene.certificate("shop", &[SHOP]);
            eventually("the new certificate", || {
                (ask_tls(dial(listen), scene.client(), SHOP).unwrap() == new).then_some(())
            });
        }
        // A pair that does not fit, and a certificate for another host, change nothing.
        let before = ask_tls(dial(listen), scene.client(), SHOP).unwrap();
        scene.certificate("shop", &["other.example.com"]);
        gateway.logged(&["not valid for shop.example.com"]);
        fs::write(scene.mesh.path().join("certs/shop.key"), scene.issue(&[SHOP], Profile::SERVER_AUTH).key_pem())
            .unwrap();
        gateway.logged(&["is not the key of the certificate"]);
        assert_eq!(ask_tls(dial(listen), scene.client(), SHOP).unwrap(), before);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(failed.load(Ordering::Relaxed), 0);
    assert!(done.load(Ordering::Relaxed) > 3);
    let metrics = gateway.get("/stats/prometheus").unwrap();
    assert!(metrics.contains("portcullis_gateway_reload_total{result=\"error\"}"), "{metrics}");
    assert!(metrics.contains("portcullis_cert_expiry_seconds{resource_name=\"gateway\"}"), "{metrics}");
}

#[test]
fn a_named_load_balancer_must_send_a_header() {
    let scene = Scene::new();
    let (gateway, listen) = scene.gateway(&format!("proxyProtocol: {{from: [127.0.0.1/32]}}, {}", scene.simple()));
    for header in [v1(CLIENT), v2(CLIENT)] {
        let mut stream = dial(listen);
        let balancer = stream.local_addr().unwrap().to_string();
        stream.write_all(&header).unwrap();
        ask_tls(stream, scene.client(), SHOP).unwrap();
        let line =
            eventually("its line", || gateway.access().into_iter().find(|line| line["src.relayed_by"] == *balancer));
        assert_eq!((&line["src.addr"], &line["reason"]), (&CLIENT.into(), &"-".into()), "{line}");
    }
    // Its own connections, such as health checks, count as its own.
    let mut local = dial(listen);
    local.write_all(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0").unwrap();
    ask_tls(local, scene.client(), SHOP).unwrap();
    drop(dial(listen));
    line(&gateway, "client_gone");

    for first in [&b"\x16\x03\x01\x00\x10"[..], b"PROXY TCP4 1.2.3.4\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = dial(listen);
        stream.write_all(first).unwrap();
        assert!(read_all(&mut stream).0.is_empty());
    }
    assert!(line(&gateway, "bad_proxy_header")["hint"].as_str().unwrap().contains("proxyProtocol.from"));
    assert_eq!(scene.app.count(), 3);
}

#[test]
fn a_header_from_anybody_else_is_not_believed() {
    let scene = Scene::new();
    let stranger = Ipv4Addr::new(127, 9, 9, 9);
    let from = "proxyProtocol: {from: [127.0.0.1/32]}";
    let (gateway, listen) = scene.gateway(&format!("{from}, {}", scene.simple()));
    let mut stream = dial_from(stranger, listen);
    stream.write_all(&v1(CLIENT)).unwrap();
    assert!(read_all(&mut stream).0.is_empty());
    let refused = line(&gateway, "plaintext_at_gateway");
    assert!(refused["hint"].as_str().unwrap().contains("is not believed"), "{refused}");
    assert!(refused["src.addr"].as_str().unwrap().starts_with("127.9.9.9:"), "{refused}");
    // Without one it is a client like any other.
    ask_tls(dial_from(stranger, listen), scene.client(), SHOP).unwrap();
    drop(gateway);

    // In plaintext the header is only the first bytes of what it sends.
    let (gateway, listen) = scene.gateway(&format!("{from}, routes: [{{{}}}]", scene.to_cart()));
    let mut stream = dial_from(stranger, listen);
    stream.write_all(&v1(CLIENT)).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream).0, [b"got:".as_slice(), &v1(CLIENT)].concat());
    assert!(line(&gateway, "-")["src.addr"].as_str().unwrap().starts_with("127.9.9.9:"));
}

#[test]
fn policies_see_the_address_of_the_header() {
    let scene = Scene::before(App { address: echo(), ..App::start() });
    scene.policy("block", "action: DENY, rules: [{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}]}]");
    // The direct peer is the load balancer, so this one matches nothing.
    scene.policy("direct", "action: DENY, rules: [{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}]");
    // Nobody has an identity here.
    scene.policy(
        "named",
        &format!("action: DENY, rules: [{{from: [{{source: {{principals: [\"{}\"]}}}}]}}]", &CART[9..]),
    );
    let listener = format!("proxyProtocol: {{from: [127.0.0.0/8]}}, routes: [{{{}}}]", scene.to_cart());
    let (gateway, listen) = scene.gateway(&listener);
    let connect = |client: &str| {
        let mut stream = dial(listen);
        stream.write_all(&v2(client)).unwrap();
        stream
    };
    refused(&mut connect(CLIENT));
    let denied = line(&gateway, "authorization_denied");
    assert_eq!((&denied["policy"], &denied["src.addr"]), (&"shop/block".into(), &CLIENT.into()), "{denied}");
    assert!(scene.cart.access().is_empty(), "the server was not dialled");

    let (mut one, mut two) = (connect(OTHER), connect("192.0.2.2:1"));
    alive(&mut one);
    alive(&mut two);
    // Open connections follow.
    scene.policy("more", &format!("action: DENY, rules: [{{to: [{{operation: {{ports: ['{}']}}}}], from: [{{source: {{remoteIpBlocks: [192.0.2.1]}}}}]}}]", listen.port()));
    refused(&mut one);
    assert_eq!(line(&gateway, "policy_changed")["src.addr"], OTHER);
    alive(&mut two);
}

#[test]
fn dry_runs_are_reported_and_modes_are_not() {
    const DRY_RUN: &str = ", annotations: {istio.io/dry-run: 'true'}";
    let scene = Scene::new();
    let deny = "action: DENY, rules: [{from: [{source: {remoteIpBlocks: [203.0.113.0/24]}}]}]";
    scene.put("AuthorizationPolicy", "try", DRY_RUN, deny);
    // It would refuse every client of an inbound port.
    scene.put("PeerAuthentication", "strict", DRY_RUN, "mtls: {mode: STRICT}");
    let (gateway, listen) =
        scene.gateway(&format!("proxyProtocol: {{from: [127.0.0.0/8]}}, routes: [{{{}}}]", scene.to_cart()));
    let mut stream = dial(listen);
    stream.write_all(&[&v2(CLIENT), b"hello".as_slice()].concat()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut stream).0, b"got:hello");
    let found = gateway.logged(&["would_deny", "shop/try", CLIENT]);
    assert!(found.contains("authorization_denied"), "{found}");
    line(&gateway, "-");
    assert!(!gateway.read_log().contains("would_refuse"), "{}", gateway.read_log());
}

#[test]
fn rules_compare_the_server_name() {
    let scene = Scene::new();
    scene.policy("sni", &format!("rules: [{{when: [{{key: connection.sni, values: [{SHOP}]}}]}}]"));
    let all = scene.certificate("all", &["*.example.org"]);
    let (gateway, listen) = scene.gateway(&format!(
        "tls: {{mode: SIMPLE, certificates: [{}, {}]}}, routes: [{{{}}}]",
        pair("shop", SHOP),
        pair("all", "*.example.org"),
        scene.to_cart()
    ));
    ask_tls(dial(listen), scene.client(), SHOP).unwrap();
    let mut tls = secure(dial(listen), scene.client(), "a.example.org");
    let _sent = tls.write_all(b"hello");
    assert!(read_all(&mut tls).0.is_empty());
    assert_eq!(tls.conn.peer_certificates().unwrap()[0], all);
    assert_eq!(line(&gateway, "authorization_not_allowed")["policy"], "shop/sni");
    assert_eq!(scene.app.count(), 1);
}

#[test]
fn a_client_certificate_is_demanded_with_mutual() {
    let scene = Scene::new();
    fs::write(scene.mesh.path().join("certs/ca.pem"), scene.web.bundle_pem()).unwrap();
    let (gateway, listen) = scene.gateway(&format!(
        "tls: {{mode: MUTUAL, clientCa: certs/ca.pem, certificates: [{}]}}, routes: [{{{}}}]",
        pair("shop", SHOP),
        scene.to_cart()
    ));
    let with = RawPeer::presenting(&scene.issue(&["client.example.com"], Profile::CLIENT_AUTH)).client();
    ask_tls(dial(listen), with, SHOP).unwrap();
    let error = ask_tls(dial(listen), scene.client(), SHOP).unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::CertificateRequired), "{error}");
    assert!(line(&gateway, "no_certificate")["hint"].as_str().unwrap().contains("MUTUAL"));
    // One of the mesh is none of these clients.
    let error = ask_tls(dial(listen), scene.mesh.client().client(), SHOP).unwrap_err();
    assert_eq!(alert(&error), Some(AlertDescription::UnknownCA), "{error}");
    assert!(line(&gateway, "unknown_ca")["hint"].as_str().unwrap().contains("clientCa"));
    assert_eq!(scene.app.count(), 1);
}

/// `mode: auto`: the route's destination is a service of the directory.
/// The first byte of TLS is not enough to push out who is in the middle of a handshake.
#[test]
fn one_byte_does_not_take_the_place_of_a_client_hello() {
    let scene = Scene::new();
    let (gateway, listen) = scene.gateway_with(&scene.simple(), "limits: {handshakes: 8}\n");
    let mut honest = secure(patient(dial(listen)), scene.client(), SHOP);
    honest.conn.write_tls(&mut honest.sock).unwrap();
    // The answer shows that the hello was read. The handshake goes on later.
    honest.conn.read_tls(&mut honest.sock).unwrap();
    let flood: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = dial(listen);
            stream.write_all(b"\x16").unwrap();
            // So that the byte is there before the next one connects.
            thread::sleep(Duration::from_millis(5));
            stream
        })
        .collect();
    line(&gateway, "too_many_handshakes");
    honest.conn.process_new_packets().unwrap();
    honest.write_all(b"hello").unwrap();
    honest.conn.send_close_notify();
    honest.flush().unwrap();
    let mut answer = Vec::new();
    honest.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"got:hello");
    drop(flood);
}

#[test]
fn a_route_leads_to_a_service_of_the_directory() {
    let scene = Scene::new();
    let entry = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
         hosts: [cart.shop.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: tcp, protocol: TCP}}]\n  \
         endpoints: [{{address: {}, ports: {{tcp: {}}}, labels: {{app: cart}}, serviceAccount: cart}}]\n",
        scene.inbound.ip(),
        scene.inbound.port()
    );
    fs::write(scene.mesh.path().join("policies/services.yaml"), entry).unwrap();
    let (gateway, listen) = scene.gateway("routes: [{address: \"cart:80\", mode: auto}]");
    assert!(passed(listen, b"hello"));
    let ours = line(&gateway, "-");
    assert_eq!((&ours["dst.identity"], &ours["mode"]), (&CART.into(), &"mtls".into()), "{ours}");
}

#[test]
fn a_drain_closes_the_listener_and_keeps_its_connections() {
    let scene = Scene::before(App { address: echo(), ..App::start() });
    let (gateway, listen) = scene.gateway(&format!("routes: [{{{}}}], limit: 1", scene.to_cart()));
    let mut open = dial(listen);
    alive(&mut open);
    refused(&mut dial(listen));
    line(&gateway, "too_many_on_listener");
    let mut admin = dial(gateway.admin);
    admin
        .write_all(
            b"POST /drain_listeners HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    assert!(String::from_utf8(read_all(admin).0).unwrap().starts_with("HTTP/1.1 200"));
    eventually("the listener is closed", || TcpStream::connect(listen).is_err().then_some(()));
    alive(&mut open);
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let scene = Scene::new();
    let root = scene.mesh.path();
    let config = |tls: &str| {
        let text = format!(
            "workload: {{name: gateway, namespace: shop}}\ngateway:\n  listeners:\n    - listen: \"{}\"\n      \
             tls: {{{tls}}}\n      routes: [{{address: \"{}\", mode: plaintext}}]\n",
            free_address(),
            scene.inbound
        );
        let path = root.join("broken.yaml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = config(&format!("mode: SIMPLE, certificates: [{}]", pair("none", SHOP)));
    let checked = run(&["config", "check", "-c", &missing]);
    assert_eq!(checked.code, Some(65), "{}", checked.out);
    assert!(checked.out.contains("gateway.listeners[0].tls.certificates[0].privateKey"), "{}", checked.out);
    for (tls, expected) in [
        (format!("mode: SIMPLE, certificates: [{}]", pair("none", SHOP)), "none.pem"),
        (
            format!("mode: SIMPLE, certificates: [{}]", pair("shop", "other.example.com")),
            "not valid for other.example.com",
        ),
        (
            format!("mode: MUTUAL, clientCa: certs/shop.key, certificates: [{}]", pair("shop", SHOP)),
            "clientCa: it has a PRIVATE KEY block",
        ),
    ] {
        let started = run(&["proxy", "--config", &config(&tls)]);
        assert_eq!(started.code, Some(65), "{} {}", started.out, started.err);
        assert!(started.err.contains(expected), "{}", started.err);
    }
    assert_eq!(ask(scene.inbound, b"").unwrap_or_default(), b"");
}
