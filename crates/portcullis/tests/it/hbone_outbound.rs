//! HBONE between two sidecars: the app's connections on pooled tunnels.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::raw::{Mesh, accept, alive, dial, identity_files, reset};
use crate::support::{App, CART, PATIENCE, Sidecar, WEB, eventually, free_address, passed};

const PORT: u16 = 8080;

struct Scene {
    mesh: Mesh,
    cart: Sidecar,
    web: Sidecar,
    /// What the client's app dials.
    listen: SocketAddr,
}

impl Scene {
    fn new(app: SocketAddr) -> Self {
        Self::with(app, CART)
    }

    /// A web whose sidecar expects `expected`, and a cart before `app`.
    fn with(app: SocketAddr, expected: &str) -> Self {
        let mesh = Mesh::new("STRICT");
        let (hbone, inbound, listen) = (free_address(), free_address(), free_address());
        let body = |name: &str, rest: &str| {
            format!(
                "workload: {{name: {name}, namespace: shop, serviceAccount: {name}}}\n\
                 identity: {{files: {{certificate: {name}/cert.pem, privateKey: {name}/key.pem, trustBundle: {name}/ca.pem}}}}\n\
                 {rest}"
            )
        };
        let rest = format!(
            "policies: policies\n\
             inbound: {{hbone: \"{hbone}\", ports: [{{listen: \"{inbound}\", port: {PORT}, app: \"{app}\"}}]}}\n"
        );
        let cart = mesh.start("cart", &body("cart", &rest), |_| ());
        let rest = format!(
            "outbound:\n  hbonePort: {}\n  upstreams: [{{listen: \"{listen}\", address: \"{}:{PORT}\", mode: hbone, identities: [\"{expected}\"]}}]\n",
            hbone.port(),
            hbone.ip()
        );
        let web = mesh.start("web", &body("web", &rest), |_| ());
        Self { mesh, cart, web, listen }
    }

    fn handshakes(&self) -> String {
        let page = self.cart.get("/stats/prometheus").unwrap();
        let line =
            page.lines().find(|line| line.starts_with("portcullis_handshake_seconds_count{reporter=\"destination\"}"));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    fn line(&self, of: &Sidecar, fits: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        eventually("an access line", || of.access().into_iter().find(|line| fits(line)))
    }
}

/// An app that sends back what it gets, as it gets it.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn pattern(length: u32) -> Vec<u8> {
    (0..length).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[test]
fn a_thousand_connections_share_one() {
    let app = App::start();
    let scene = Scene::new(app.address);
    for round in 0..20 {
        let clients: Vec<_> = (0..50)
            .map(|client| {
                let listen = scene.listen;
                thread::spawn(move || passed(listen, format!("{round}.{client}").as_bytes()))
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap()), "{}", scene.web.read_log());
    }
    assert_eq!((app.count(), scene.handshakes().as_str()), (1000, "1"));
    let line = scene.line(&scene.web, |line| line["reason"] == "-");
    assert_eq!((&line["mode"], &line["transport"]), (&"hbone".into(), &"mtls".into()), "{line}");
    assert_eq!((&line["src.identity"], &line["dst.identity"]), (&WEB.into(), &CART.into()), "{line}");
    assert!(line["dst.hbone_addr"].as_str().unwrap().ends_with(":8080"), "{line}");
}

/// Two hundred and fifty at once need three tunnels, and no connection waits for another one.
#[test]
fn more_connections_than_a_tunnel_has_streams_open_further_tunnels() {
    let scene = Scene::new(echo());
    let mut open: Vec<_> = (0..250).map(|_| dial(scene.listen)).collect();
    for stream in &mut open {
        alive(stream);
    }
    assert_eq!(scene.handshakes(), "3");
}

#[test]
fn large_transfers_arrive_whole_beside_a_reader_that_does_not_read() {
    let scene = Scene::new(echo());
    // This one sends, and does not read what comes back, until both directions are full.
    let mut stuck = dial(scene.listen);
    stuck.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    while stuck.write(&[7; 65_536]).is_ok() {}
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stream = dial(scene.listen);
            thread::spawn(move || {
                let payload = pattern(8_000_000);
                let (mut writing, sent) = (stream.try_clone().unwrap(), payload.clone());
                let writer = thread::spawn(move || {
                    writing.write_all(&sent).unwrap();
                    writing.shutdown(Shutdown::Write).unwrap();
                });
                let mut received = Vec::new();
                (&stream).read_to_end(&mut received).unwrap();
                writer.join().unwrap();
                received == payload
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
    assert_eq!(scene.handshakes(), "1");
}

#[test]
fn half_close_and_resets_pass_through_both_sidecars() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::new(listener.local_addr().unwrap());
    let pair = || {
        let mut client = dial(scene.listen);
        client.write_all(b"x").unwrap();
        let mut app = accept(&listener);
        app.read_exact(&mut [0]).unwrap();
        (client, app)
    };
    let (mut client, mut app) = pair();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(app.read(&mut [0]).unwrap(), 0, "the end of one direction");
    app.write_all(b"answer").unwrap();
    drop(app);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");

    let (mut client, app) = pair();
    reset(&app);
    drop(app);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (client, mut app) = pair();
    reset(&client);
    drop(client);
    assert_eq!(app.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn another_identity_than_the_expected_one_gets_nothing() {
    let app = App::start();
    let scene = Scene::with(app.address, "spiffe://cluster.local/ns/shop/sa/pay");
    assert!(refused(scene.listen));
    scene.line(&scene.web, |line| line["reason"] == "id_mismatch");
    assert_eq!(app.count(), 0);
}

/// The app's connection is reset: it must not take it for an empty answer.
fn refused(listen: SocketAddr) -> bool {
    let mut stream: TcpStream = dial(listen);
    // A reset is told once, to whichever call comes first.
    let ended = stream.write_all(b"x").and_then(|()| stream.read_exact(&mut [0]));
    ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn what_the_peer_refuses_is_reset_and_never_sent_in_plaintext() {
    let app = App::start();
    let mut scene = Scene::new(app.address);
    assert!(passed(scene.listen, b"one"));
    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nobody, namespace: shop}\nspec: {}\n";
    fs::write(scene.mesh.path().join("policies/deny.yaml"), deny).unwrap();
    // One that was open when the policy came is cut instead.
    let line = eventually("denied", || {
        assert!(refused(scene.listen));
        scene.web.access().into_iter().find(|line| line["reason"] == "hbone_refused")
    });
    assert!(line["error"].as_str().unwrap().contains("401"), "{line}");
    scene.cart.child.kill().unwrap();
    scene.cart.child.wait().unwrap();
    // The first one may still find the tunnel, which fails then.
    eventually("nothing to dial", || {
        assert!(refused(scene.listen));
        scene.web.access().iter().any(|line| line["reason"] == "peer_unreachable").then_some(())
    });
}

#[test]
fn new_credentials_make_a_new_tunnel_and_open_streams_go_on() {
    let scene = Scene::new(echo());
    let mut open = dial(scene.listen);
    alive(&mut open);
    assert_eq!(scene.handshakes(), "1");
    let authority = &scene.mesh.authority;
    scene.mesh.set_identity("web", identity_files(authority, &authority.workload(WEB)));
    eventually("a second tunnel", || {
        alive(&mut dial(scene.listen));
        (scene.handshakes() == "2").then_some(())
    });
    alive(&mut open);
    // The old tunnel ends with its last stream, and the new one stays.
    drop(open);
    eventually("one tunnel", || {
        let page = scene.web.get("/stats/prometheus")?;
        page.contains("portcullis_hbone_tunnels_open{reporter=\"source\"} 1").then_some(())
    });
}

#[test]
fn distrust_cuts_streams_and_no_other_rides_on_the_tunnel() {
    let scene = Scene::new(echo());
    let mut open = dial(scene.listen);
    alive(&mut open);
    // The web trusts another root from now on; its own certificate is of that one too.
    let other = portcullis_testkit::certs::Authority::root("cluster.local");
    scene.mesh.set_identity("web", identity_files(&other, &other.workload(WEB)));
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    scene.line(&scene.web, |line| line["reason"] == "trust_changed");
    assert!(refused(scene.listen));
}

#[test]
fn a_peer_that_drains_is_left_and_one_that_restarts_is_found_again() {
    let app = App::start();
    let mut scene = Scene::new(app.address);
    assert!(passed(scene.listen, b"one"));
    scene.cart.signal("TERM");
    eventually("exit", || scene.cart.child.try_wait().unwrap());
    assert!(refused(scene.listen));
    let config = scene.mesh.path().join("cart.yaml");
    let again = Sidecar::launch(&config, scene.cart.admin);
    again.ready();
    assert!(passed(scene.listen, b"two"), "{}", scene.web.read_log());
}

/// Its network is gone, or it hangs: nothing says so but a PING without an answer.
#[test]
fn a_peer_that_is_silent_loses_its_streams_and_is_dialled_anew_when_it_is_back() {
    let scene = Scene::new(echo());
    let mut open = dial(scene.listen);
    alive(&mut open);
    scene.cart.signal("STOP");
    // From the last answered PING to the next one, and the time for its answer: 30 s at most.
    open.set_read_timeout(Some(3 * PATIENCE)).unwrap();
    assert_eq!(open.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let page = scene.web.get("/stats/prometheus").unwrap();
    let given_up = "portcullis_hbone_tunnels_closed_total{reporter=\"source\",reason=\"unresponsive\"} 1";
    assert!(page.contains(given_up), "{page}");
    scene.cart.signal("CONT");
    alive(&mut dial(scene.listen));
}
