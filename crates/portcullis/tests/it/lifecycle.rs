//! Expiry of certificates, changes that require a restart, and a forced drain.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::support::raw::{Mesh, alive, dial, identity_files, read_all, tls_client};
use crate::support::{CART, Sidecar, WEB, eventually, free_address};
use portcullis_testkit::RawPeer;
use portcullis_testkit::apps::echo;
use portcullis_testkit::certs::{Authority, Profile, now};

/// An address where a dial hangs: its backlog is full.
fn unresponsive() -> (socket2::Socket, SocketAddr, Vec<socket2::Socket>) {
    let tcp = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = tcp();
    listener.bind(&free_address().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let waiting = (0..3)
        .map(|_| {
            let one = tcp();
            one.set_nonblocking(true).unwrap();
            let _in_progress = one.connect(&address.into());
            one
        })
        .collect();
    (listener, address, waiting)
}

/// The exit code, and how long it took from the signal.
fn ended(sidecar: &mut Sidecar, since: Instant) -> (Option<i32>, Duration) {
    let status = eventually("the end", || sidecar.child.try_wait().unwrap());
    (status.code(), since.elapsed())
}

/// In detection, in a handshake, in a dial: all are reset when the grace is over, and none delays the end.
#[test]
fn a_forced_drain_resets_connections_that_are_still_undecided() {
    let mesh = Mesh::new("STRICT");
    let (_listener, stuck, _waiting) = unresponsive();
    let more = "drain: {grace: 2s}\ntimeouts: {connect: 60s, handshake: 60s}\n";
    let (mut cart, listen) = mesh.cart_with(stuck, more, |_| ());
    let silent = dial(listen);
    let mut half = dial(listen);
    half.write_all(&[0x16, 3, 1, 1, 0, 1]).unwrap();
    let mut hello = tls_client(dial(listen), mesh.client().client());
    // The hello is out; its answer is not looked at, so the handshake stays where it is.
    hello.conn.write_tls(&mut hello.sock).unwrap();
    let mut dialling = tls_client(dial(listen), mesh.client().client());
    while dialling.conn.is_handshaking() {
        dialling.conn.complete_io(&mut dialling.sock).unwrap();
    }
    eventually("four connections", || {
        cart.get("/stats/prometheus")?.contains("istio_tcp_sockets_open{reporter=\"destination\"} 4").then_some(())
    });
    let since = Instant::now();
    cart.signal("TERM");
    let (code, took) = ended(&mut cart, since);
    assert_eq!(code, Some(3));
    assert!(took >= Duration::from_secs(2) && took < Duration::from_millis(2450), "{took:?}");
    for (which, stream) in [("silent", &silent), ("half", &half), ("hello", &hello.sock), ("dialling", &dialling.sock)]
    {
        assert_eq!(read_all(stream).1, Some(ErrorKind::ConnectionReset), "{which}");
    }
    let lines = cart.access();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        assert_eq!((&line["reason"], &line["decision"]), (&"drain_forced".into(), &"deny".into()), "{line}");
    }
}

#[test]
fn a_second_signal_resets_an_outbound_dial() {
    let mesh = Mesh::new("STRICT");
    let silent_peer = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut web, listen) = mesh.web(silent_peer.local_addr().unwrap(), |_| ());
    let client = dial(listen);
    let mut peer = crate::support::raw::accept(&silent_peer);
    peer.read_exact(&mut [0; 1]).unwrap();
    let since = Instant::now();
    web.signal("TERM");
    web.logged(&["draining"]);
    web.signal("TERM");
    let (code, took) = ended(&mut web, since);
    assert_eq!(code, Some(3));
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(read_all(&client).1, Some(ErrorKind::ConnectionReset));
    assert_eq!(web.access()[0]["reason"], "drain_forced");
}

/// A root that ends while a connection lives takes it along, with no reload and no other change.
#[test]
fn a_root_that_ends_closes_what_rests_on_it() {
    let mesh = Mesh::new("STRICT");
    let ends = now() + 6;
    let subject = "CN=short-lived root";
    let passing = Authority::self_signed(&Profile::authority("cluster.local", subject).valid(now() - 60, ends));
    let bundle = format!("{}{}", mesh.authority.bundle_pem(), passing.bundle_pem());
    fs::write(mesh.path().join("cart/ca.pem"), bundle).unwrap();
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let mut stays = tls_client(dial(listen), mesh.client().client());
    alive(&mut stays);
    let doomed = RawPeer::presenting(&passing.workload(WEB)).with_alpn(&[b"istio"]);
    let mut doomed = tls_client(dial(listen), doomed.client());
    alive(&mut doomed);
    assert_eq!(read_all(&mut doomed).1, Some(ErrorKind::ConnectionReset));
    let late = now() - ends;
    assert!((0..=3).contains(&late), "{late} s after its end");
    let line = eventually("its line", || cart.access().pop());
    assert_eq!((&line["reason"], &line["src.identity"]), (&"trust_changed".into(), &WEB.into()), "{line}");
    alive(&mut stays);
    assert!(cart.get("/stats/prometheus").unwrap().contains("portcullis_credentials_generation 1\n"), "no reload");
}

/// A word before the end and one at the end, each once; readiness and metrics say the same.
#[test]
fn an_own_certificate_that_ends_is_announced_and_told() {
    let mesh = Mesh::new("STRICT");
    let issued = mesh.authority.issue(&Profile::leaf(CART).valid(now() - 6, now() + 6));
    mesh.set_identity("cart", identity_files(&mesh.authority, &issued));
    let (cart, _listen) = mesh.cart(echo(), |_| ());
    let soon = cart.logged(&["\"level\":\"WARN\"", "ends soon"]);
    assert!(soon.contains("\"until\":\"20") && soon.contains("seconds_left"), "{soon}");
    assert!(!cart.read_log().contains("has expired"));
    cart.logged(&["\"level\":\"ERROR\"", "the own certificate has expired"]);
    assert!(cart.get("/healthz/ready").unwrap().starts_with("HTTP/1.1 503"));
    mesh.set_identity("cart", identity_files(&mesh.authority, &mesh.authority.workload(CART)));
    cart.ready();
    let log = cart.read_log();
    for word in ["ends soon", "has expired"] {
        assert_eq!(log.matches(word).count(), 1, "{log}");
    }
}

#[test]
fn a_changed_configuration_is_reported_and_not_loaded() {
    let mesh = Mesh::new("STRICT");
    let (cart, _listen) = mesh.cart(echo(), |_| ());
    let needed = |state: &str| cart.get("/server_info").unwrap().contains(&format!("\"restartNeeded\": {state}"));
    cart.signal("HUP");
    cart.logged(&["reload requested"]);
    assert!(needed("false"));
    let file = mesh.path().join("cart.yaml");
    let text = fs::read_to_string(&file).unwrap();
    // As an editor does, so that it is another file.
    let replace = |text: &str| {
        fs::write(mesh.path().join(".draft"), text).unwrap();
        fs::rename(mesh.path().join(".draft"), &file).unwrap();
    };
    replace(&format!("{text}timeouts: {{idle: 1s}}\n"));
    assert!(needed("true"));
    assert!(!cart.read_log().contains("restart needed"), "only when a reload is asked for");
    cart.signal("HUP");
    let warning = cart.logged(&["\"level\":\"WARN\"", "restart needed"]);
    assert!(warning.contains("cart.yaml"), "{warning}");
    replace(&text);
    assert!(needed("false"));
    fs::remove_file(&file).unwrap();
    assert!(needed("null"));
    cart.signal("HUP");
    cart.logged(&["it is unknown whether a restart is needed"]);
}
