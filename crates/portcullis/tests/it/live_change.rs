//! Open connections are re-authorized when policy or trust changes, and limits are enforced.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::raw::{Mesh, accept, alive, dial, expect, identity_files, read_all, tls_client};
use crate::support::{CART, Sidecar, WEB, eventually, free_address};
use portcullis_testkit::RawPeer;
use portcullis_testkit::apps::echo;
use portcullis_testkit::certs::Authority;

/// What a change refuses is closed within a second.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Waits until the sidecar has taken its `generation`-th set of this kind, and says when that was noticed.
fn in_force(sidecar: &Sidecar, set: &str, generation: u32) -> Instant {
    let line = format!("portcullis_{set}_generation {generation}");
    eventually(&line, || {
        let page = sidecar.get("/stats/prometheus").unwrap();
        page.lines().any(|found| found == line).then(Instant::now)
    })
}

/// The one access line with this reason.
fn line(sidecar: &Sidecar, reason: &str) -> serde_json::Value {
    eventually(reason, || sidecar.access().into_iter().find(|line| line["reason"] == reason))
}

#[test]
fn strict_closes_live_plaintext_and_leaves_mtls() {
    let (mesh, listener) = (Mesh::new("PERMISSIVE"), TcpListener::bind("127.0.0.1:0").unwrap());
    let (cart, listen) = mesh.cart(listener.local_addr().unwrap(), |_| ());
    let mut plain = dial(listen);
    plain.write_all(b"hello").unwrap();
    let plain_app = accept(&listener);
    expect(&plain_app, b"hello");
    let mut mtls = tls_client(dial(listen), mesh.client().client());
    mtls.write_all(b"hello").unwrap();
    let mut mtls_app = accept(&listener);
    expect(&mtls_app, b"hello");

    mesh.set_mode("STRICT");
    let since = in_force(&cart, "policy", 2);
    assert_eq!(read_all(&plain).1, Some(ErrorKind::ConnectionReset), "the client");
    assert_eq!(read_all(&plain_app).1, Some(ErrorKind::ConnectionReset), "the app");
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    let closed = line(&cart, "policy_changed");
    assert_eq!((&closed["message"], &closed["decision"]), (&"connection closed".into(), &"deny".into()), "{closed}");
    assert_eq!((&closed["mode"], &closed["policy"]), (&"STRICT".into(), &"shop/default".into()), "{closed}");
    assert_eq!(closed["bytes_recv"], 5, "{closed}");

    // Who has an identity stays, whatever the mode.
    for (mode, generation) in [("DISABLE", 3), ("PERMISSIVE", 4), ("STRICT", 5)] {
        mesh.set_mode(mode);
        in_force(&cart, "policy", generation);
        mtls.write_all(mode.as_bytes()).unwrap();
        expect(&mtls_app, mode.as_bytes());
        mtls_app.write_all(mode.as_bytes()).unwrap();
        expect(&mut mtls, mode.as_bytes());
    }
}

#[test]
fn what_a_disabled_port_let_through_unseen_is_unauthenticated() {
    let mesh = Mesh::new("DISABLE");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let mut client = dial(listen);
    alive(&mut client);
    mesh.set_mode("PERMISSIVE");
    in_force(&cart, "policy", 2);
    alive(&mut client);
    mesh.set_mode("STRICT");
    assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
    line(&cart, "policy_changed");
}

#[test]
fn a_change_of_trust_closes_both_sides_and_a_rotation_none() {
    let mesh = Mesh::new("STRICT");
    let (cart, inbound) = mesh.cart(echo(), |_| ());
    let (_web, outbound) = mesh.web(inbound, |_| ());
    let mut through_both = dial(outbound);
    alive(&mut through_both);
    let mut direct = tls_client(dial(inbound), mesh.client().client());
    alive(&mut direct);

    let renewed = identity_files(&mesh.authority, &mesh.authority.workload(CART));
    mesh.set_identity("cart", renewed);
    in_force(&cart, "credentials", 2);
    alive(&mut through_both);
    alive(&mut direct);

    // The peers' root leaves the bundle of cart.
    let other = Authority::root("cluster.local");
    mesh.set_identity("cart", identity_files(&other, &other.workload(CART)));
    let since = in_force(&cart, "credentials", 3);
    let ended = direct.read(&mut [0; 1]).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert!(since.elapsed() < AT_ONCE, "{:?}", since.elapsed());
    assert_eq!(read_all(&through_both).1, Some(ErrorKind::ConnectionReset));
    let closed = line(&cart, "trust_changed");
    assert_eq!((&closed["src.identity"], &closed["decision"]), (&WEB.into(), &"deny".into()), "{closed}");
}

#[test]
fn a_change_of_trust_closes_what_the_client_side_opened() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    let (web, outbound) = mesh.web(inbound, |_| ());
    let mut client = dial(outbound);
    alive(&mut client);
    let other = Authority::root("cluster.local");
    mesh.set_identity("web", identity_files(&other, &other.workload(WEB)));
    assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
    let closed = line(&web, "trust_changed");
    assert_eq!((&closed["dst.identity"], &closed["direction"]), (&CART.into(), &"outbound".into()), "{closed}");
}

/// Connections that are opened while the policy changes under them: none survives STRICT without an identity.
#[test]
fn no_connection_survives_a_policy_swap() {
    let mesh = Mesh::new("PERMISSIVE");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let survivors = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let opened = thread::scope(|scope| {
        let openers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut opened = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        if let Ok(mut stream) = TcpStream::connect(listen)
                            && stream.write_all(b"x").is_ok()
                        {
                            opened += 1;
                            let mut all = survivors.lock().unwrap();
                            all.push(stream);
                            // Enough to have some at every moment, without running out of ports.
                            let surplus = all.len().saturating_sub(200);
                            all.drain(..surplus);
                        }
                    }
                    opened
                })
            })
            .collect();
        for generation in 2..22 {
            mesh.set_mode(if generation % 2 == 0 { "STRICT" } else { "PERMISSIVE" });
            in_force(&cart, "policy", generation);
        }
        mesh.set_mode("STRICT");
        in_force(&cart, "policy", 22);
        stop.store(true, Ordering::Relaxed);
        openers.into_iter().map(|opener| opener.join().unwrap()).sum::<u32>()
    });
    assert!(opened > 500, "{opened} connections prove little");
    eventually("no connection is left", || {
        let page = cart.get("/stats/prometheus").unwrap();
        page.contains("istio_tcp_sockets_open{reporter=\"destination\"} 0").then_some(())
    });
    for mut stream in survivors.into_inner().unwrap() {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(!matches!(&ended, Err(error) if error.kind() == ErrorKind::WouldBlock), "alive after STRICT");
    }
}

#[test]
fn cap_rejects_then_recovers() {
    let mesh = Mesh::new("PERMISSIVE");
    let (cart, listen) = mesh.cart_with(echo(), "limits: {connections: 2}\n", |_| ());
    let (mut one, mut two) = (dial(listen), dial(listen));
    alive(&mut one);
    alive(&mut two);
    for _ in 0..3 {
        let over = dial(listen);
        assert_eq!(read_all(&over).1, Some(ErrorKind::ConnectionReset));
    }
    let refused = line(&cart, "too_many_connections");
    assert!(refused["hint"].as_str().unwrap().contains("limits.connections"), "{refused}");
    alive(&mut one);
    drop(two);
    eventually("room again", || {
        let mut next = dial(listen);
        let answered = next.write_all(b"ping").and_then(|()| next.read_exact(&mut [0; 4]));
        answered.is_ok().then_some(())
    });
}

/// The same for one listener, while another one goes on.
#[test]
fn the_cap_of_a_listener_rejects_then_recovers() {
    let (mesh, app, other) = (Mesh::new("PERMISSIVE"), echo(), free_address());
    let more =
        format!("outbound: {{upstreams: [{{listen: \"{other}\", address: \"{app}\", mode: plaintext, limit: 1}}]}}\n");
    let (cart, listen) = mesh.cart_with(app, &more, |_| ());
    let mut one = dial(other);
    alive(&mut one);
    for _ in 0..3 {
        assert_eq!(read_all(&dial(other)).1, Some(ErrorKind::ConnectionReset));
        alive(&mut dial(listen));
    }
    let refused = line(&cart, "too_many_on_listener");
    assert_eq!((&refused["direction"], &refused["decision"]), (&"outbound".into(), &"deny".into()), "{refused}");
    alive(&mut one);
    drop(one);
    eventually("room again", || {
        let mut next = dial(other);
        let answered = next.write_all(b"ping").and_then(|()| next.read_exact(&mut [0; 4]));
        answered.is_ok().then_some(())
    });
}

/// The same for one peer, while another one and plaintext go on.
#[test]
fn the_cap_of_a_peer_rejects_then_recovers() {
    let mesh = Mesh::new("PERMISSIVE");
    let (cart, listen) = mesh.cart_with(echo(), "limits: {perIdentity: 2}\n", |_| ());
    let (web, shop) = (mesh.client(), mesh.server().with_alpn(&[b"istio"]));
    let open = |peer: &RawPeer| tls_client(dial(listen), peer.client());
    let (mut one, mut two) = (open(&web), open(&web));
    alive(&mut one);
    alive(&mut two);
    for _ in 0..3 {
        let mut over = open(&web);
        // The kernel reports a reset once; that may be at the end of the handshake.
        let handshake = over.conn.complete_io(&mut over.sock).err().map(|error| error.kind());
        assert_eq!(handshake.or_else(|| read_all(&mut over).1), Some(ErrorKind::ConnectionReset));
        alive(&mut open(&shop));
        alive(&mut dial(listen));
    }
    let refused = line(&cart, "too_many_of_peer");
    assert_eq!((&refused["src.identity"], &refused["decision"]), (&WEB.into(), &"deny".into()), "{refused}");
    let page = cart.get("/stats/prometheus").unwrap();
    assert!(page.lines().any(|line| line.contains("reason=\"too_many_of_peer\"") && line.ends_with("} 3")), "{page}");
    alive(&mut one);
    drop(two);
    eventually("room again", || {
        let mut next = open(&web);
        let answered = next.write_all(b"ping").and_then(|()| next.read_exact(&mut [0; 4]));
        answered.is_ok().then_some(())
    });
}

/// Silent clients exhaust neither the limit on connections nor that of a listener.
#[test]
fn silent_clients_do_not_fill_a_cap() {
    let (app, listen) = (echo(), free_address());
    for (limit, limits) in [("", "{connections: 16}"), (", limit: 2", "{handshakes: 4}")] {
        let mesh = Mesh::new("STRICT");
        let body = format!(
            "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\npolicies: policies\n\
             identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
             inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{app}\"{limit}}}]}}\nlimits: {limits}\n"
        );
        let cart = mesh.start("cart", &body, |_| ());
        let silent: Vec<TcpStream> = (0..40).map(|_| dial(listen)).collect();
        for _ in 0..10 {
            alive(&mut tls_client(dial(listen), mesh.client().client()));
        }
        drop((silent, cart));
    }
}

/// Silent clients do not keep others out.
#[test]
fn silent_clients_lose_their_slots_to_honest_ones() {
    let mesh = Mesh::new("STRICT");
    let (cart, listen) = mesh.cart_with(echo(), "limits: {handshakes: 8}\n", |_| ());
    let silent: Vec<TcpStream> = (0..50).map(|_| dial(listen)).collect();
    for _ in 0..20 {
        let mut honest = tls_client(dial(listen), mesh.client().client());
        alive(&mut honest);
    }
    let dropped = line(&cart, "too_many_handshakes");
    assert!(dropped["hint"].as_str().unwrap().contains("limits.handshakes"), "{dropped}");
    // A source that holds half of the places loses its own: of 50 at most four are left.
    let open = |stream: &&TcpStream| {
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        matches!((&mut &**stream).read(&mut [0; 1]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    };
    assert!(silent.iter().filter(open).count() <= 4);
}

/// What Kiali and Istio's dashboards ask for is there while the connection lives, and nothing of an mTLS edge is unknown.
#[test]
fn an_mtls_edge_is_fully_labelled_while_it_lives() {
    let mesh = Mesh::new("STRICT");
    let (cart, inbound) = mesh.cart(echo(), |_| ());
    let (web, outbound) = mesh.web(inbound, |_| ());
    let mut client = dial(outbound);
    alive(&mut client);
    for (sidecar, reporter) in [(&cart, "destination"), (&web, "source")] {
        for family in ["istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total"] {
            let start = format!("{family}{{");
            // The client may have read its bytes a moment before they are counted.
            let found = eventually("the bytes of a live connection", || {
                let page = sidecar.get("/stats/prometheus").unwrap();
                let lines: Vec<&str> = page.lines().filter(|line| line.starts_with(&start)).collect();
                assert_eq!(lines.len(), 1, "{lines:?}");
                lines[0].ends_with("} 4").then(|| lines[0].to_owned())
            });
            assert!(!found.contains("\"unknown\"") && !found.contains("\"\""), "{found}");
            for label in [
                format!("reporter=\"{reporter}\""),
                format!("source_principal=\"{WEB}\""),
                format!("destination_principal=\"{CART}\""),
                "source_workload=\"web\"".to_owned(),
                "source_workload_namespace=\"shop\"".to_owned(),
                "destination_workload=\"cart\"".to_owned(),
                "destination_service=\"cart.shop.svc.cluster.local\"".to_owned(),
                "destination_service_name=\"cart\"".to_owned(),
                "connection_security_policy=\"mutual_tls\"".to_owned(),
                "response_flags=\"-\"".to_owned(),
                "source_cluster=\"Kubernetes\"".to_owned(),
            ] {
                assert!(found.contains(&label), "{label} in {found}");
            }
        }
    }
    let page = cart.get("/stats/prometheus").unwrap();
    for expected in [
        "portcullis_tls_info_total{version=\"TLSv1.3\",group=\"X25519MLKEM768\"",
        "portcullis_handshake_seconds_count{reporter=\"destination\"} ",
        "portcullis_cert_expiry_seconds{resource_name=\"default\"}",
        "istio_agent_cert_expiry_seconds{resource_name=\"ROOTCA\"}",
        "portcullis_policy_reload_total{result=\"ok\"} 1",
        "istio_build{component=\"portcullis\",tag=",
        "process_open_fds ",
    ] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
}
