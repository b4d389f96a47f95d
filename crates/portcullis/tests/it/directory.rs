//! The service directory in running sidecars: which endpoint is dialled, over what, and what a change does.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::raw::{Mesh, accept, alive, dial, expect, read_all};
use crate::support::{App, CART, Sidecar, ask, eventually, free_address, passed, run};
use portcullis_testkit::RawPeer;
use portcullis_testkit::apps::echo;
use portcullis_testkit::certs::{Authority, Profile, San};

/// The service cart with these endpoints: address, service account (none: no sidecar), further fields.
fn service(mesh: &Mesh, endpoints: &[(SocketAddr, &str, &str)]) {
    let mut text =
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                    hosts: [cart.shop.svc.cluster.local]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
                    ports: [{number: 80, name: tcp, protocol: TCP}]\n  endpoints:\n"
            .to_owned();
    for (address, account, more) in endpoints {
        let account = if account.is_empty() { String::new() } else { format!(", serviceAccount: {account}") };
        let (ip, port) = (address.ip(), address.port());
        writeln!(text, "    - {{address: {ip}, ports: {{tcp: {port}}}, labels: {{app: cart}}{account}{more}}}")
            .unwrap();
    }
    put(mesh, "services", &text);
}

/// A DestinationRule for cart; `policy` is its trafficPolicy.
fn rule(mesh: &Mesh, policy: &str) {
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\n\
         spec: {{host: cart, trafficPolicy: {policy}}}\n"
    );
    put(mesh, "rule", &text);
}

/// Replaces a file of the policy folder by rename.
fn put(mesh: &Mesh, name: &str, text: &str) {
    let folder = mesh.path().join("policies");
    fs::write(folder.join(".draft-of-service"), text).unwrap();
    fs::rename(folder.join(".draft-of-service"), folder.join(format!("{name}.yaml"))).unwrap();
}

/// A sidecar that reaches cart as the directory says.
fn web(mesh: &Mesh, outbound: &str) -> (Sidecar, SocketAddr) {
    let listen = free_address();
    let body = format!(
        "workload: {{name: web, namespace: shop, serviceAccount: web}}\npolicies: policies\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
         outbound: {{upstreams: [{{listen: \"{listen}\", address: \"cart:80\", mode: auto}}]{outbound}}}\n"
    );
    (mesh.start("web", &body, |_| ()), listen)
}

/// The last access line with this field.
fn line(sidecar: &Sidecar, field: &str, value: &str) -> Value {
    eventually(value, || sidecar.access().into_iter().rev().find(|line| line[field] == value))
}

fn counted(sidecar: &Sidecar, metric: &str, parts: &[&str]) -> bool {
    let page = sidecar.get("/stats/prometheus").unwrap();
    page.lines().any(|line| line.starts_with(metric) && parts.iter().all(|part| line.contains(part)))
}

fn generation(sidecar: &Sidecar, generation: u32) {
    let line = format!("portcullis_policy_generation {generation}");
    eventually(&line, || sidecar.get("/stats/prometheus")?.lines().any(|found| found == line).then_some(()));
}

#[test]
fn an_endpoint_is_reached_as_its_policy_says() {
    let (mesh, app) = (Mesh::new("STRICT"), App::start());
    let (_cart, inbound) = mesh.cart(app.address, |_| ());
    service(&mesh, &[(inbound, "cart", "")]);
    let (web, listen) = web(&mesh, "");
    assert!(passed(listen, b"over mTLS"));
    let secured = line(&web, "transport", "mtls");
    assert_eq!((&secured["mode"], &secured["dst.identity"]), (&"mtls".into(), &CART.into()), "{secured}");

    mesh.set_mode("DISABLE");
    generation(&web, 2);
    eventually("plaintext", || {
        assert!(passed(listen, b"while it changes"));
        web.access().into_iter().rev().find(|line| line["transport"] == "plaintext")
    });
    let plain = line(&web, "transport", "plaintext");
    assert_eq!((&plain["mode"], &plain["policy"]), (&"plaintext".into(), &"shop/default".into()), "{plain}");
    assert!(counted(&web, "portcullis_outbound_downgrades_total", &["warn"]));
    let warned = eventually("a warning", || {
        web.read_log()
            .lines()
            .find(|line| line.contains("cart.shop.svc.cluster.local:80") && line.contains("mode_disable"))
            .map(str::to_owned)
    });
    assert!(warned.contains("WARN"), "{warned}");
}

/// Example 4 of the mesh's documentation, and the way back: a legacy service is set to DISABLE while it is called.
#[test]
fn no_request_is_lost_while_the_mode_changes() {
    let (mesh, app) = (Mesh::new("STRICT"), App::start());
    let (cart, inbound) = mesh.cart(app.address, |_| ());
    service(&mesh, &[(inbound, "cart", "")]);
    let (web, listen) = web(&mesh, "");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..3)
        .map(|caller| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let mut failed = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = asked.fetch_add(1, Ordering::Relaxed);
                    let payload = format!("request {number} of {caller}");
                    let answer = ask(listen, payload.as_bytes());
                    if !answer.as_ref().is_ok_and(|answer| *answer == format!("got:{payload}").into_bytes()) {
                        failed.push((payload, answer));
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                failed
            })
        })
        .collect();
    for (generation_after, mode) in
        ["DISABLE", "STRICT", "DISABLE", "PERMISSIVE", "DISABLE", "STRICT"].into_iter().enumerate()
    {
        thread::sleep(Duration::from_millis(900));
        mesh.set_mode(mode);
        generation(&cart, u32::try_from(generation_after).unwrap() + 2);
    }
    thread::sleep(Duration::from_millis(900));
    stop.store(true, Ordering::Relaxed);
    let failed: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:?}", failed.len(), asked.load(Ordering::Relaxed));
    // Both ways were taken.
    let transports = |transport: &str| web.access().iter().filter(|line| line["transport"] == transport).count();
    assert!(transports("mtls") > 50 && transports("plaintext") > 50);
    assert!(web.access().iter().all(|line| line["reason"] == "-"), "{}", web.read_log());
}

#[test]
fn a_kept_connection_moves_between_two_answers() {
    let mesh = Mesh::new("DISABLE");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    service(&mesh, &[(inbound, "cart", "")]);
    let (web, listen) = web(&mesh, "");
    let mut kept = dial(listen);
    alive(&mut kept);
    mesh.set_mode("STRICT");
    // It ends as a server ends a connection that it keeps no longer: with a FIN.
    assert_eq!(read_all(&kept), (Vec::new(), None));
    assert_eq!(line(&web, "reason", "policy_changed")["transport"], "plaintext");
    let mut next = dial(listen);
    alive(&mut next);
    // The other way it stays: mTLS is more than plaintext.
    mesh.set_mode("DISABLE");
    generation(&web, 3);
    thread::sleep(Duration::from_millis(700));
    alive(&mut next);
}

#[test]
fn a_downgrade_is_refused_if_so_configured() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    service(&mesh, &[(inbound, "cart", "")]);
    let (web, listen) = web(&mesh, ", downgrade: refuse");
    alive(&mut dial(listen));
    service(&mesh, &[(inbound, "", "")]);
    eventually("refused", || (!passed_echo(listen)).then_some(()));
    let refused = line(&web, "reason", "downgrade");
    assert_eq!(refused["error"], "no_sidecar", "{refused}");
    // Nothing of it is left once it is mTLS again.
    service(&mesh, &[(inbound, "cart", "")]);
    eventually("mTLS again", || passed_echo(listen).then_some(()));
}

/// One endpoint has a sidecar, the other has none: each is what it is, and that is no downgrade.
#[test]
fn endpoints_with_and_without_a_sidecar_live_together() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    service(&mesh, &[(inbound, "cart", ""), (echo(), "", "")]);
    let (web, listen) = web(&mesh, ", downgrade: refuse");
    for _ in 0..30 {
        alive(&mut dial(listen));
    }
    let transports = |transport: &str| web.access().iter().filter(|line| line["transport"] == transport).count();
    assert!(transports("mtls") > 0 && transports("plaintext") > 0, "{}", web.read_log());
    assert!(!counted(&web, "portcullis_outbound_downgrades_total", &["refuse"]));
}

#[test]
fn a_server_must_be_who_the_directory_says_and_no_other_endpoint_hides_it() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    // Both are the cart's sidecar; for the first one the directory names another account.
    let (_other, other) = mesh.cart(echo(), |_| ());
    service(&mesh, &[(inbound, "pay", ", locality: eu/a"), (other, "cart", ", locality: us/a")]);
    let listen = free_address();
    let body = format!(
        "workload: {{name: web, namespace: shop, serviceAccount: web, locality: eu/a}}\npolicies: policies\n\
         identity: {{files: {{certificate: web/cert.pem, privateKey: web/key.pem, trustBundle: web/ca.pem}}}}\n\
         outbound: {{upstreams: [{{listen: \"{listen}\", address: \"cart:80\", mode: auto}}]}}\n"
    );
    let web = mesh.start("web", &body, |_| ());
    assert_eq!(read_all(dial(listen)).1, Some(ErrorKind::ConnectionReset));
    let refused = line(&web, "reason", "id_mismatch");
    assert!(refused["error"].as_str().unwrap().contains("ns/shop/sa/pay"), "{refused}");

    // Without an account there is nobody to expect.
    service(&mesh, &[(inbound, "", "")]);
    rule(&mesh, "{tls: {mode: ISTIO_MUTUAL}}");
    eventually("no identity", || {
        let _refused = passed_echo(listen);
        web.access().into_iter().find(|line| line["reason"] == "no_server_identity")
    });
}

#[test]
fn another_endpoint_is_tried_when_one_does_not_answer() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    let dead = free_address();
    service(&mesh, &[(dead, "cart", ""), (inbound, "cart", "")]);
    let (web, listen) = web(&mesh, "");
    for _ in 0..20 {
        alive(&mut dial(listen));
    }
    assert!(web.access().iter().all(|line| line["reason"] == "-"), "{}", web.read_log());
    service(&mesh, &[(dead, "cart", "")]);
    generation(&web, 2);
    let gone = eventually("refused", || {
        let _refused = passed_echo(listen);
        web.access().into_iter().find(|line| line["reason"] == "peer_unreachable")
    });
    assert!(gone["error"].as_str().unwrap().contains(&dead.to_string()), "{gone}");
}

#[test]
fn an_endpoint_that_fails_again_and_again_gets_no_connections_for_a_while() {
    let mesh = Mesh::new("STRICT");
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    let dead = free_address();
    service(&mesh, &[(dead, "cart", ""), (inbound, "cart", "")]);
    let (web, listen) = web(&mesh, "");
    // Each dial of the dead one is a failure, and the next endpoint serves the connection.
    eventually("ejected", || {
        alive(&mut dial(listen));
        counted(&web, "portcullis_outbound_ejections_total 1", &[]).then_some(())
    });
    eventually("the gauge", || counted(&web, "portcullis_outbound_ejected_endpoints 1", &[]).then_some(()));
    let log = web.read_log();
    let told = log.lines().find(|line| line.contains("an endpoint failed again and again")).unwrap();
    assert!(told.contains(&dead.to_string()) && told.contains("cart.shop.svc.cluster.local"), "{told}");
    // Whoever gets its address now gets nothing.
    let listener = std::net::TcpListener::bind(dead).unwrap();
    listener.set_nonblocking(true).unwrap();
    for _ in 0..20 {
        alive(&mut dial(listen));
    }
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_service_that_nobody_declares_is_refused() {
    let mesh = Mesh::new("STRICT");
    let (web, listen) = web(&mesh, "");
    assert_eq!(read_all(dial(listen)).1, Some(ErrorKind::ConnectionReset));
    let refused = line(&web, "reason", "no_service");
    assert!(refused["hint"].as_str().unwrap().contains("ServiceEntry"), "{refused}");
    // It needs no restart to be declared.
    let (_cart, inbound) = mesh.cart(echo(), |_| ());
    service(&mesh, &[(inbound, "cart", "")]);
    eventually("declared", || passed_echo(listen).then_some(()));
    // Nor to be taken away: open connections of it end.
    let mut kept = dial(listen);
    alive(&mut kept);
    fs::remove_file(mesh.path().join("policies/services.yaml")).unwrap();
    assert_eq!(read_all(&kept).1, Some(ErrorKind::ConnectionReset));
}

fn passed_echo(listen: SocketAddr) -> bool {
    let mut stream = dial(listen);
    let mut answer = [0; 4];
    stream.write_all(b"ping").is_ok()
        && std::io::Read::read_exact(&mut stream, &mut answer).is_ok()
        && answer == *b"ping"
}

#[test]
fn a_rule_can_originate_tls_to_a_server_outside() {
    let mesh = Mesh::new("STRICT");
    let outside = Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", "CN=a CA of the web") });
    let server = outside.issue(&Profile {
        sans: Some(vec![San::Dns("api.outside.test".to_owned())]),
        san_critical: false,
        ..Profile::leaf("unused")
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    fs::create_dir(mesh.path().join("tls")).unwrap();
    fs::write(mesh.path().join("tls/ca.pem"), outside.bundle_pem()).unwrap();
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: cart, namespace: shop}}\nspec:\n  \
         hosts: [cart.shop.svc.cluster.local]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: tcp, protocol: TCP, targetPort: {}}}]\n  endpoints: [{{address: {}}}]\n",
        address.port(),
        address.ip()
    );
    put(&mesh, "services", &text);
    let (web, listen) = web(&mesh, ", tlsFolder: tls");
    // Without a rule it passes through.
    let mut plain = dial(listen);
    plain.write_all(b"plain").unwrap();
    expect(accept(&listener), b"plain");
    rule(&mesh, "{tls: {mode: SIMPLE, caCertificates: ../web/key.pem, sni: api.outside.test}}");
    let unusable = eventually("unusable", || {
        let _end = read_all(dial(listen));
        web.access().into_iter().find(|line| line["reason"] == "origination_unusable")
    });
    assert!(unusable["error"].as_str().unwrap().contains("outbound.tlsFolder"), "{unusable}");
    rule(&mesh, "{tls: {mode: SIMPLE, caCertificates: ca.pem, sni: api.outside.test}}");
    generation(&web, 3);
    thread::sleep(Duration::from_millis(400));
    while {
        listener.set_nonblocking(true).unwrap();
        listener.accept().is_ok()
    } {}
    listener.set_nonblocking(false).unwrap();
    let serving = thread::spawn(move || {
        let mut stream = crate::support::raw::tls_server(accept(&listener), RawPeer::presenting(&server).server());
        expect(&mut stream, b"ping");
        stream.write_all(b"pong").unwrap();
    });
    let mut client = dial(listen);
    client.write_all(b"ping").unwrap();
    expect(&client, b"pong");
    serving.join().unwrap();
    drop(client);
    let originated = line(&web, "transport", "tls");
    assert_eq!((&originated["mode"], &originated["policy"]), (&"tls".into(), &"shop/cart".into()), "{originated}");
}

#[test]
fn explain_tells_how_a_destination_is_reached() {
    let mesh = Mesh::new("STRICT");
    service(&mesh, &[("10.0.0.1:8080".parse().unwrap(), "cart", ""), ("10.0.0.2:8080".parse().unwrap(), "", "")]);
    let config = mesh.path().join("web.yaml");
    fs::write(
        &config,
        format!(
            "workload: {{name: web, namespace: shop}}\npolicies: policies\noutbound:\n  transparent: \"127.0.0.1:1\"\n  \
             trafficPolicy: REGISTRY_ONLY\n  routes: [{{cidrs: [10.9.0.0/16], mode: mtls, identities: [\"{CART}\"]}}]\n"
        ),
    )
    .unwrap();
    let explain = |to: &str| {
        let ran = run(&["explain", "-c", config.to_str().unwrap(), "--to", to]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        ran.out
    };
    let cart = explain("cart:80");
    assert!(cart.starts_with("cart:80: service cart.shop.svc.cluster.local (shop/cart, "), "{cart}");
    let mtls = cart.lines().find(|line| line.contains("10.0.0.1:8080")).unwrap();
    assert!(mtls.contains(&format!("mtls with {CART}: ")) && mtls.contains("shop/default"), "{mtls}");
    let plain = cart.lines().find(|line| line.contains("10.0.0.2:8080")).unwrap();
    assert!(plain.contains("plaintext: no sidecar"), "{plain}");
    assert!(explain("10.0.0.1:8080").contains("10.0.0.1:8080  mtls"), "the endpoint itself");
    assert!(explain("cart:81").contains("refused: the service has no such port"));
    assert!(explain("10.9.1.1:5").contains("mtls with") && explain("10.9.1.1:5").contains("outbound.routes[0]"));
    assert!(explain("elsewhere.test:443").contains("REGISTRY_ONLY"));
    let json = run(&["explain", "-c", config.to_str().unwrap(), "--to", "cart:80", "-o", "json"]).json();
    assert_eq!((&json["decidedBy"], &json["refused"]), (&"directory".into(), &false.into()), "{json}");
    assert_eq!(json["directory"]["service"]["ports"][0]["endpoints"][0]["transport"]["identities"][0], CART);
    let wrong = run(&["explain", "-c", config.to_str().unwrap(), "--to", "cart"]);
    assert_eq!(wrong.code, Some(64));
    assert!(wrong.err.contains("host:port"), "{}", wrong.err);
}
