//! HBONE to endpoints of the service directory that say that they take it.

use std::fs;
use std::net::SocketAddr;

use portcullis_testkit::certs::Authority;

use crate::support::raw::{Mesh, dial, identity_files, read_all};
use crate::support::{App, CART, Sidecar, eventually, free_address, passed};

const PORT: u16 = 8080;

struct Scene {
    mesh: Mesh,
    app: App,
    cart: Sidecar,
    web: Sidecar,
    listen: SocketAddr,
}

impl Scene {
    /// A web that finds the cart in the directory, with this label. The cart takes tunnels, or does not.
    fn new(tunnel: &str, takes_tunnels: bool) -> Self {
        let (mesh, app) = (Mesh::new("STRICT"), App::start());
        let (hbone, inbound, listen) = (free_address(), free_address(), free_address());
        let files = |name: &str| {
            format!(
                "workload: {{name: {name}, namespace: shop, serviceAccount: {name}}}\npolicies: policies\n\
                 identity: {{files: {{certificate: {name}/cert.pem, privateKey: {name}/key.pem, trustBundle: {name}/ca.pem}}}}\n"
            )
        };
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
             hosts: [cart.shop.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: tcp, protocol: TCP}}]\n  endpoints:\n    \
             - {{address: {}, ports: {{tcp: {}}}, serviceAccount: cart, labels: {{app: cart, networking.istio.io/tunnel: \"{tunnel}\"}}}}\n",
            inbound.ip(),
            inbound.port()
        );
        fs::write(mesh.path().join("policies/services.yaml"), entry).unwrap();
        let tunnels = if takes_tunnels { format!("hbone: \"{hbone}\", ") } else { String::new() };
        let body = format!(
            "{}inbound: {{{tunnels}ports: [{{listen: \"{inbound}\", port: {PORT}, app: \"{}\"}}]}}\n",
            files("cart"),
            app.address
        );
        let cart = mesh.start("cart", &body, |_| ());
        let body = format!(
            "{}outbound: {{hbonePort: {}, upstreams: [{{listen: \"{listen}\", address: \"cart:80\", mode: auto}}]}}\n",
            files("web"),
            hbone.port()
        );
        let web = mesh.start("web", &body, |_| ());
        Self { mesh, app, cart, web, listen }
    }

    fn line(&self, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually("an access line", || self.web.access().into_iter().rev().find(|line| fits(line)))
    }

    fn handshakes(&self) -> String {
        let page = self.cart.get("/stats/prometheus").unwrap();
        let count = "portcullis_handshake_seconds_count{reporter=\"destination\"} ";
        page.lines().find_map(|line| line.strip_prefix(count)).unwrap().to_owned()
    }
}

#[test]
fn an_endpoint_with_the_label_gets_its_connections_through_a_tunnel() {
    let scene = Scene::new("http", true);
    for number in 0..5 {
        assert!(passed(scene.listen, format!("connection {number}").as_bytes()), "{}", scene.web.read_log());
    }
    assert_eq!((scene.app.count(), scene.handshakes().as_str()), (5, "1"));
    let line = scene.line(|line| line["reason"] == "-");
    assert_eq!((&line["mode"], &line["transport"]), (&"hbone".into(), &"mtls".into()), "{line}");
    assert_eq!((&line["dst.identity"], &line["policy"]), (&CART.into(), &"shop/default".into()), "{line}");
}

#[test]
fn without_the_label_there_is_no_tunnel() {
    let scene = Scene::new("other", true);
    assert!(passed(scene.listen, b"one"));
    assert_eq!(scene.line(|line| line["reason"] == "-")["mode"], "mtls");
}

/// The directory is wrong: one dial more for the first connection, none for the next ones, and mTLS for all.
#[test]
fn an_endpoint_that_takes_no_tunnels_gets_mtls_on_tcp() {
    let scene = Scene::new("http", false);
    for number in 0..3 {
        assert!(passed(scene.listen, format!("connection {number}").as_bytes()), "{}", scene.web.read_log());
    }
    let line = scene.line(|line| line["reason"] == "-");
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(
        (text("mode"), text("transport"), text("dst.identity")),
        ("mtls".into(), "mtls".into(), CART.into()),
        "{line}"
    );
    assert!(line.get("dst.hbone_addr").is_none_or(|address| address == "-"), "{line}");
    let log = scene.web.read_log();
    assert_eq!(log.matches("is said to take HBONE and does not").count(), 1, "{log}");
}

/// Another identity behind the port of tunnels is no reason to try another way.
#[test]
fn a_stranger_behind_a_tunnel_gets_nothing() {
    let scene = Scene::new("http", true);
    let other = Authority::root("cluster.local");
    scene.mesh.set_identity("web", identity_files(&other, &other.workload(crate::support::WEB)));
    eventually("refused", || {
        let stream = dial(scene.listen);
        let refused = read_all(&stream).1.is_some();
        (refused && scene.web.access().iter().any(|line| line["decision"] == "deny")).then_some(())
    });
    let before = scene.app.count();
    assert!(read_all(dial(scene.listen)).1.is_some());
    assert_eq!(scene.app.count(), before);
    let log = scene.web.read_log();
    assert!(!log.contains("is said to take HBONE and does not"), "{log}");
}
