//! AuthorizationPolicies in a running sidecar: who is denied never reaches the app, and live connections follow changes.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use crate::support::raw::{Mesh, accept, alive, dial, expect, read_all, tls_client};
use crate::support::{App, Sidecar, WEB, eventually};
use portcullis_testkit::RawPeer;
use portcullis_testkit::apps::echo;
use serde_json::Value;

/// A policy of the namespace `shop` in a file of its own; `annotations` and `spec` as flow mappings.
fn put(mesh: &Mesh, folder: &str, name: &str, kind: &str, annotations: &str, spec: &str) {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop{annotations}}}\nspec: {spec}\n"
    );
    let folder = mesh.path().join(folder);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".draft"), text).unwrap();
    fs::rename(folder.join(".draft"), folder.join(format!("{name}.yaml"))).unwrap();
}

fn authorization(mesh: &Mesh, name: &str, spec: &str) {
    put(mesh, "policies", name, "AuthorizationPolicy", "", spec);
}

const DRY_RUN: &str = ", annotations: {istio.io/dry-run: 'true'}";
const DENY_WEB: &str = "{action: DENY, rules: [{to: [{operation: {ports: ['9']}}]}, {from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]}]}";

/// The one access line with this reason.
fn line(sidecar: &Sidecar, reason: &str) -> Value {
    eventually(reason, || sidecar.access().into_iter().find(|line| line["reason"] == reason))
}

/// The line about a policy that is not enforced.
fn shadow_line(sidecar: &Sidecar, decision: &str) -> Value {
    eventually(decision, || {
        let log = sidecar.read_log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["target"] == "policy" && line["decision"] == decision)
    })
}

/// It was reset. Reading may begin with a write, which fails otherwise.
fn ended(stream: &mut impl Read) {
    let (bytes, error) = read_all(stream);
    let expected = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(bytes.is_empty() && error.is_some_and(|kind| expected.contains(&kind)), "{bytes:?} {error:?}");
}

fn generation(sidecar: &Sidecar, generation: u32) {
    let line = format!("portcullis_policy_generation {generation}");
    eventually(&line, || sidecar.get("/stats/prometheus")?.lines().any(|found| found == line).then_some(()));
}

fn counted(sidecar: &Sidecar, metric: &str, parts: &[&str]) -> bool {
    let page = sidecar.get("/stats/prometheus").unwrap();
    page.lines().any(|line| line.starts_with(metric) && parts.iter().all(|part| line.contains(part)))
}

#[test]
fn a_denied_peer_never_reaches_the_app() {
    let (mesh, app) = (Mesh::new("STRICT"), App::start());
    authorization(&mesh, "deny-web", DENY_WEB);
    let (cart, listen) = mesh.cart(app.address, |_| ());
    let mut client = tls_client(dial(listen), mesh.client().client());
    // In TLS 1.3 the client's handshake completes before it is refused.
    let _sent = client.write_all(b"hello");
    let (bytes, error) = read_all(&mut client);
    // Reading writes what is left to be written first, into a connection that may be reset by then.
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    assert!(bytes.is_empty() && error.is_some_and(|error| reset.contains(&error)), "{bytes:?} {error:?}");
    let denied = line(&cart, "authorization_denied");
    assert_eq!((&denied["policy"], &denied["rule"]), (&"shop/deny-web".into(), &1.into()), "{denied}");
    assert_eq!((&denied["src.identity"], &denied["mode"]), (&WEB.into(), &"STRICT".into()), "{denied}");
    let error = denied["error"].as_str().unwrap();
    assert!(
        error.contains("rule 1 of AuthorizationPolicy shop/deny-web") && error.contains("deny-web.yaml:4"),
        "{error}"
    );
    assert!(counted(&cart, "portcullis_policy_decisions_total", &["authorization_denied", "shop/deny-web", "mtls"]));
    assert!(counted(&cart, "istio_tcp_connections_failed_total", &["DENY", "sa/web"]));
    assert_eq!(app.count(), 0, "the app was dialled");
}

#[test]
fn without_an_identity_no_positive_match_holds() {
    let (mesh, app) = (Mesh::new("PERMISSIVE"), echo());
    authorization(&mesh, "web-only", "{rules: [{from: [{source: {principals: ['cluster.local/ns/shop/sa/web']}}]}]}");
    let (cart, listen) = mesh.cart(app, |_| ());
    alive(&mut tls_client(dial(listen), mesh.client().client()));
    let mut plain = dial(listen);
    plain.write_all(b"hello").unwrap();
    assert_eq!(read_all(&plain), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    let denied = line(&cart, "authorization_not_allowed");
    assert_eq!((&denied["policy"], &denied["transport"]), (&"shop/web-only".into(), &"plaintext".into()), "{denied}");

    // Under DISABLE nobody has one, whatever they send.
    mesh.set_mode("DISABLE");
    generation(&cart, 2);
    let mut plain = dial(listen);
    let _sent = plain.write_all(b"hello");
    assert_eq!(read_all(&plain).0, b"");
    // A rule about the port alone needs none.
    authorization(&mesh, "port", "{rules: [{to: [{operation: {ports: ['8080']}}]}]}");
    generation(&cart, 3);
    alive(&mut dial(listen));
}

#[test]
fn the_app_does_not_speak_first_to_who_is_denied() {
    let mesh = Mesh::new("PERMISSIVE");
    authorization(&mesh, "meshed", "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}]}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let app = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let folder = mesh.path();
    let listen = crate::support::free_address();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\npolicies: policies\ntimeouts: {{handshake: 1s}}\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{ports: [{{listen: \"{listen}\", port: 3306, app: \"{app}\", protocol: server-first}}]}}\n"
    );
    let _cart = Sidecar::start(folder, "server-first", &body);
    let silent = dial(listen);
    assert_eq!(read_all(&silent).0, b"", "the greeting of the app");
    assert_eq!(
        listener.accept().map_err(|error| error.kind()).err(),
        Some(ErrorKind::WouldBlock),
        "the app was dialled"
    );
    // Who has an identity is served: the ClientHello comes first.
    let client = tls_client(dial(listen), mesh.client().client());
    let greeted = thread::spawn(move || expect(client, b"220 hello"));
    listener.set_nonblocking(false).unwrap();
    accept(&listener).write_all(b"220 hello").unwrap();
    greeted.join().unwrap();
}

#[test]
fn live_connections_follow_the_policies() {
    let mesh = Mesh::new("PERMISSIVE");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let mut mtls = tls_client(dial(listen), mesh.client().client());
    let mut plain = dial(listen);
    alive(&mut mtls);
    alive(&mut plain);
    authorization(&mesh, "deny-web", DENY_WEB);
    ended(&mut mtls);
    let closed = line(&cart, "policy_changed");
    assert_eq!((&closed["policy"], &closed["rule"]), (&"shop/deny-web".into(), &1.into()), "{closed}");
    assert!(closed["error"].as_str().unwrap().contains("deny-web.yaml:4"), "{closed}");
    alive(&mut plain);
    // A broken document changes nothing.
    authorization(&mesh, "broken", "{action: deny}");
    eventually("the error", || cart.read_log().contains("unsupported-action").then_some(()));
    let mut again = tls_client(dial(listen), mesh.client().client());
    let _sent = again.write_all(b"x");
    ended(&mut again);
    alive(&mut plain);
}

#[test]
fn the_server_name_counts_in_lower_case_and_for_live_connections() {
    let mesh = Mesh::new("STRICT");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let named = |name: &'static str| {
        let connection = ClientConnection::new(Arc::new(mesh.client().client()), ServerName::try_from(name).unwrap());
        StreamOwned::new(connection.unwrap(), dial(listen))
    };
    let (mut good, mut evil) = (named("good.test"), named("EVIL.test"));
    alive(&mut good);
    alive(&mut evil);
    // An AUDIT rule decides nothing, about live connections either.
    authorization(&mesh, "audit", "{action: AUDIT, rules: [{when: [{key: connection.sni, values: [other.test]}]}]}");
    generation(&cart, 2);
    alive(&mut evil);
    authorization(&mesh, "name", "{action: DENY, rules: [{when: [{key: connection.sni, values: ['evil.test']}]}]}");
    ended(&mut evil);
    assert_eq!(line(&cart, "policy_changed")["policy"], "shop/name");
    alive(&mut good);
    let mut again = named("eVil.test");
    let _sent = again.write_all(b"x");
    ended(&mut again);

    // Under DISABLE there is no server name, for connections from before as well.
    authorization(&mesh, "name", "{rules: [{when: [{key: connection.sni, values: [good.test]}]}]}");
    generation(&cart, 4);
    alive(&mut good);
    mesh.set_mode("DISABLE");
    ended(&mut good);
}

/// What came into force while a client was in its handshake counts before the app is dialled.
#[test]
fn a_change_during_the_handshake_counts() {
    let (mesh, app) = (Mesh::new("STRICT"), App::start());
    let (cart, listen) = mesh.cart(app.address, |_| ());
    let slow = dial(listen);
    eventually("the connection is accepted", || {
        counted(&cart, "istio_tcp_sockets_open", &["destination", "} 1"]).then_some(())
    });
    authorization(&mesh, "deny-web", DENY_WEB);
    generation(&cart, 2);
    let mut client = tls_client(slow, mesh.client().client());
    let _sent = client.write_all(b"hello");
    ended(&mut client);
    assert_eq!(line(&cart, "policy_changed")["policy"], "shop/deny-web");
    assert_eq!(app.count(), 0, "the app was dialled");
}

#[test]
fn a_dry_run_is_reported_and_not_enforced() {
    let mesh = Mesh::new("PERMISSIVE");
    put(&mesh, "policies", "try-deny", "AuthorizationPolicy", DRY_RUN, DENY_WEB);
    put(&mesh, "policies", "try-strict", "PeerAuthentication", DRY_RUN, "{mtls: {mode: STRICT}}");
    authorization(&mesh, "audited", "{action: AUDIT, rules: [{to: [{operation: {ports: ['8080']}}]}]}");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    alive(&mut tls_client(dial(listen), mesh.client().client()));
    let denied = shadow_line(&cart, "would_deny");
    assert_eq!((&denied["level"], &denied["src.identity"]), (&"INFO".into(), &WEB.into()), "{denied}");
    let expected = (&"authorization_denied".into(), &"shop/try-deny".into(), &1.into());
    assert_eq!((&denied["reason"], &denied["policy"], &denied["rule"]), expected, "{denied}");

    let mut plain = dial(listen);
    alive(&mut plain);
    let refused = shadow_line(&cart, "would_refuse");
    let peer = plain.local_addr().unwrap().to_string();
    assert_eq!((&refused["reason"], &refused["src.addr"]), (&"plaintext_in_strict".into(), &peer.into()), "{refused}");
    assert_eq!((&refused["policy"], &refused["mode"]), (&"shop/try-strict".into(), &"STRICT".into()), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("try-strict.yaml:1"), "{refused}");

    let decisions = "portcullis_policy_decisions_total";
    assert!(counted(&cart, decisions, &["would_deny", "shop/try-deny"]));
    assert!(counted(&cart, decisions, &["would_refuse", "plaintext_in_strict", "mode=\"STRICT\"", "shop/try-strict"]));
    assert!(counted(&cart, decisions, &["decision=\"audit\"", "audit_rule", "shop/audited"]));
    assert_eq!(shadow_line(&cart, "audit")["message"], "connection audited");
}

#[test]
fn candidates_are_evaluated_beside_the_policies_in_force() {
    let mesh = Mesh::new("STRICT");
    put(&mesh, "next", "open", "PeerAuthentication", "", "{mtls: {mode: PERMISSIVE}}");
    put(&mesh, "closed", "nothing", "AuthorizationPolicy", "", "{}");
    put(&mesh, "broken", "mode", "PeerAuthentication", "", "{mtls: {mode: open}}");
    let listen = crate::support::free_address();
    let body = format!(
        "workload: {{name: cart, namespace: shop, serviceAccount: cart}}\n\
         policies: {{folder: policies, candidates: [next, closed, broken]}}\n\
         identity: {{files: {{certificate: cart/cert.pem, privateKey: cart/key.pem, trustBundle: cart/ca.pem}}}}\n\
         inbound: {{ports: [{{listen: \"{listen}\", port: 8080, app: \"{}\"}}]}}\n",
        echo()
    );
    let cart = Sidecar::start_with(mesh.path(), "candidates", &body, |command| {
        command.env("PORTCULLIS_LOG_FORMAT", "json").args(["--log-format", "json"]);
    });
    alive(&mut tls_client(dial(listen), mesh.client().client()));
    let denied = shadow_line(&cart, "would_deny");
    let expected = (&"closed".into(), &"authorization_not_allowed".into(), &"shop/nothing".into());
    assert_eq!((&denied["candidate"], &denied["reason"], &denied["policy"]), expected, "{denied}");
    let mut plain = dial(listen);
    let _sent = plain.write_all(b"hello");
    assert_eq!(read_all(&plain).0, b"", "STRICT is in force");
    let allowed = shadow_line(&cart, "would_allow");
    assert_eq!((&allowed["candidate"], &allowed["policy"]), (&"next".into(), &"shop/open".into()), "{allowed}");
    let candidates = "portcullis_candidate_decisions_total";
    assert!(counted(&cart, candidates, &["candidate=\"closed\"", "would_deny"]));
    assert!(counted(&cart, candidates, &["candidate=\"next\"", "would_allow"]));

    // A change of a candidate is taken; a broken one leaves the last valid one, and stops nothing.
    put(&mesh, "next", "open", "PeerAuthentication", "", "{mtls: {mode: open}}");
    eventually("the error", || cart.read_log().contains("unsupported-mode").then_some(()));
    put(&mesh, "next", "open", "PeerAuthentication", "", "{mtls: {mode: STRICT}}");
    put(&mesh, "closed", "nothing", "AuthorizationPolicy", "", "{rules: [{}]}");
    eventually("three loads of both", || {
        let log = cart.read_log();
        (log.matches("candidate policies are evaluated and").count() >= 4).then_some(())
    });
    thread::sleep(Duration::from_millis(50));
    let before = cart.read_log().matches("would_").count();
    alive(&mut tls_client(dial(listen), mesh.client().client()));
    assert_eq!(cart.read_log().matches("would_").count(), before);
}

/// Neither set admits `ops`: in one a DENY rule matches, in the other no ALLOW rule does. A mixture of both would.
#[test]
fn no_connection_is_decided_by_a_mixture_of_two_sets() {
    const OPS: &str = "spiffe://cluster.local/ns/shop/sa/ops";
    let mesh = Mesh::new("STRICT");
    let (cart, listen) = mesh.cart(echo(), |_| ());
    let policy = |name: &str, spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n---\n"
        )
    };
    let allow = |who: &str| format!("{{rules: [{{from: [{{source: {{serviceAccounts: [{who}]}}}}]}}]}}");
    let deny = |who: &str| format!("{{action: DENY, rules: [{{from: [{{source: {{serviceAccounts: [{who}]}}}}]}}]}}");
    let sets = [
        policy("allow", &allow("web, ops")) + &policy("deny", &deny("ops")),
        policy("allow", &allow("pay")) + &policy("deny", &deny("web")),
    ];
    let put = |set: &str| {
        let folder = mesh.path().join("policies");
        fs::write(folder.join(".draft"), set).unwrap();
        fs::rename(folder.join(".draft"), folder.join("storm.yaml")).unwrap();
    };
    put(&sets[0]);
    generation(&cart, 2);
    let ops = RawPeer::presenting(&mesh.authority.workload(OPS)).with_alpn(&[b"istio"]);
    let over = AtomicBool::new(false);
    let (mut admitted, mut tried, mut cut) = (0, 0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Each set is in force before the next one is written, so that there are many changes.
            for (change, set) in sets.iter().cycle().skip(1).take(12).enumerate() {
                put(set);
                generation(&cart, 3 + u32::try_from(change).unwrap());
            }
            over.store(true, Ordering::Relaxed);
        });
        let mut held = tls_client(dial(listen), mesh.client().client());
        while !over.load(Ordering::Relaxed) {
            let mut stranger = tls_client(dial(listen), ops.client());
            let _sent = stranger.write_all(b"ping");
            admitted += usize::from(!read_all(&mut stranger).0.is_empty());
            tried += 1;
            // A live connection of `web` is cut whenever the second set comes into force.
            if held.write_all(b"ping").and_then(|()| held.read_exact(&mut [0; 4])).is_err() {
                cut += 1;
                held = tls_client(dial(listen), mesh.client().client());
            }
        }
    });
    assert_eq!(admitted, 0, "of {tried}");
    assert!(tried > 20 && cut >= 4, "{tried} {cut}");
}
