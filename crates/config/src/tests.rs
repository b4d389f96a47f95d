use std::path::Path;
use std::time::Duration;

use portcullis_identity::KeyType;
use portcullis_istio::AgentEnvironment;
use portcullis_policy::Mode;

use super::*;

const ISSUE: &str = r#"
workload: {name: cart, namespace: shop, serviceAccount: cart, labels: {app: cart}}
mesh: {trustDomain: cluster.local, rootNamespace: istio-system}
policies: ./policies
identity: {files: {certificate: cert.pem, privateKey: key.pem, trustBundle: ca.pem}}
inbound:
  ports: [{listen: "127.0.0.1:18080", port: 8080, app: "127.0.0.1:8080"}]
outbound:
  upstreams: [{listen: "127.0.0.1:19080", address: "127.0.0.1:18080", mode: mtls, identities: ["spiffe://cluster.local/ns/shop/sa/cart"]}]
admin: {listen: "127.0.0.1:15000"}
"#;

fn problems_of(text: &str) -> Vec<(String, &'static str)> {
    let problems = read(text.as_bytes(), Path::new("/etc/portcullis")).unwrap_err();
    problems.into_iter().map(|problem| (problem.field, problem.reason)).collect()
}

/// `ISSUE` with one piece of text replaced.
fn with(from: &str, to: &str) -> String {
    assert!(ISSUE.contains(from), "{from}");
    ISSUE.replace(from, to)
}

#[test]
fn the_documented_file_is_read() {
    let settings = read(ISSUE.as_bytes(), Path::new("/etc/portcullis")).unwrap();
    assert_eq!(settings.own_id.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(settings.policies.as_deref(), Some(Path::new("/etc/portcullis/./policies")));
    assert_eq!(settings.mesh.policy.default_mode, Mode::Permissive);
    assert_eq!(settings.inbound.ports[0].protocol, Protocol::Auto);
    assert!(matches!(settings.outbound.upstreams[0].target.mode, UpstreamMode::Fixed(RouteMode::Mtls(_))));
    assert_eq!(settings.timeouts.handshake, defaults::HANDSHAKE);
    assert!(!settings.tls.allow_tls12);
}

#[test]
fn every_problem_is_reported_in_one_run() {
    let text = r#"
workload: {name: Cart, namespace: shop, colour: red}
mesh: {trustDomain: Cluster.Local}
inbound:
  ports:
    - {listen: "127.0.0.1", port: 0, app: "127.0.0.1:8080"}
outbound:
  upstreams:
    - {listen: "127.0.0.1:1", address: "x", mode: tls}
limts: {}
"#;
    let found = problems_of(text);
    let expected = [
        ("workload.name", "invalid-name"),
        ("workload.colour", "unknown-field"),
        ("mesh.trustDomain", "td-char"),
        ("inbound.ports[0].listen", "invalid-value"),
        ("outbound.upstreams[0].address", "invalid-value"),
        ("outbound.upstreams[0].mode", "invalid-value"),
        ("limts", "unknown-field"),
    ];
    for (field, reason) in expected {
        assert!(found.contains(&(field.to_owned(), reason)), "{field} {reason} not in {found:?}");
    }
    assert!(found.iter().any(|(field, _)| field == "inbound.ports[0].port"), "{found:?}");
}

#[test]
fn mtls_without_identities_and_plaintext_with_them_are_errors() {
    let ids = r#", identities: ["spiffe://cluster.local/ns/shop/sa/cart"]"#;
    assert_eq!(problems_of(&with(ids, "")), [("outbound.upstreams[0].mode".into(), "invalid-value")]);
    assert_eq!(
        problems_of(&with("mode: mtls", "mode: plaintext")),
        [("outbound.upstreams[0].identities".into(), "invalid-value")]
    );
    assert_eq!(
        problems_of(&with(ids, ", identities: []")),
        [("outbound.upstreams[0].identities".into(), "invalid-value")]
    );
}

/// Where a text stands in another, as editors count.
fn place(text: &str, piece: &str) -> (u32, u32) {
    let before = text.split(piece).next().unwrap();
    (before.lines().count().try_into().unwrap(), (before.lines().last().unwrap().len() + 1).try_into().unwrap())
}

#[test]
fn loops_and_double_listeners_are_found_where_they_are_written() {
    let admin = r#"admin: {listen: "127.0.0.1:15000"}"#;
    let address = r#"address: "127.0.0.1:18080""#;
    for (text, field, reason, piece) in [
        (
            with(r#"app: "127.0.0.1:8080""#, r#"app: "127.0.0.1:19080""#),
            "inbound.ports[0].app",
            "loop",
            "\"127.0.0.1:19080\"}]",
        ),
        (with(admin, r#"admin: {listen: "0.0.0.0:18080"}"#), "admin.listen", "address-in-use", "\"0.0.0.0:18080\""),
        (
            with("inbound:", "inbound:\n  apps: {80: \"127.0.0.1:15000\"}"),
            "inbound.apps[80]",
            "loop",
            "\"127.0.0.1:15000\"",
        ),
        (
            with(address, r#"address: "127.0.0.1:19080" "#),
            "outbound.upstreams[0].address",
            "loop",
            "\"127.0.0.1:19080\" ",
        ),
    ] {
        let problems = read(text.as_bytes(), Path::new("/")).unwrap_err();
        let found: Vec<_> = problems
            .iter()
            .map(|problem| (problem.field.as_str(), problem.reason, (problem.position.line, problem.position.column)))
            .collect();
        assert_eq!(found, [(field, reason, place(&text, piece))]);
    }
}

#[test]
fn a_file_is_one_document_and_not_empty() {
    assert_eq!(problems_of(""), [(String::new(), "wrong-type")]);
    assert_eq!(problems_of(&format!("{ISSUE}---{ISSUE}")), [(String::new(), "wrong-type")]);
    assert_eq!(problems_of("a: [").first().unwrap().1, "yaml-syntax");
}

#[test]
fn routes_need_a_captured_listener() {
    let text = "workload: {name: a, namespace: b}\noutbound:\n  routes: [{hosts: [cart], mode: plaintext}]\n";
    assert_eq!(problems_of(text), [("outbound.routes".into(), "invalid-value")]);
}

#[test]
fn foreign_bundles_are_not_for_our_own_domain() {
    let text = with(
        "rootNamespace: istio-system",
        "trustDomainAliases: [old.local], trustBundles: {old.local: o.pem, p.test: p.pem}",
    );
    assert_eq!(problems_of(&text), [("mesh.trustBundles[old.local]".into(), "invalid-value")]);
}

#[test]
fn the_sandbox_is_on_unless_it_is_switched_off() {
    let sandbox = |text: &str| read(format!("{ISSUE}{text}\n").as_bytes(), Path::new(".")).map(|read| read.sandbox);
    assert_eq!(sandbox("").unwrap(), Sandbox { landlock: true, seccomp: true });
    assert_eq!(sandbox("sandbox: {landlock: false}").unwrap(), Sandbox { landlock: false, seccomp: true });
    assert_eq!(sandbox("sandbox: {seccomp: false}").unwrap(), Sandbox { landlock: true, seccomp: false });
    let problems = sandbox("sandbox: {landlock: off, apparmor: true}").unwrap_err();
    let found: Vec<_> = problems.iter().map(|problem| (problem.field.as_str(), problem.reason)).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&("sandbox.apparmor", "unknown-field")), "{found:?}");
}

#[test]
fn everything_but_the_workload_has_a_default() {
    let settings = read(b"workload: {name: a, namespace: b}\n", Path::new(".")).unwrap();
    assert_eq!(settings.own_id.as_str(), "spiffe://cluster.local/ns/b/sa/default");
}

#[test]
fn a_number_without_a_unit_is_refused_with_the_correction() {
    let text = format!("{ISSUE}timeouts: {{handshake: 10}}\nrescanInterval: 5\n");
    let problems = read(text.as_bytes(), Path::new("/")).unwrap_err();
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages.iter().any(|message| message.contains("write 10s")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("write 5s")), "{messages:?}");
}

#[test]
fn an_upstream_that_leads_back_is_a_loop_and_the_own_inbound_port_is_none() {
    let back = with("address: \"127.0.0.1:18080\"", "address: \"127.0.0.1:19080\"");
    assert_eq!(problems_of(&back), [("outbound.upstreams[0].address".into(), "loop")]);
    let wildcard = back.replace("listen: \"127.0.0.1:19080\"", "listen: \"0.0.0.0:19080\"");
    assert_eq!(problems_of(&wildcard), [("outbound.upstreams[0].address".into(), "loop")]);
}

#[test]
fn a_list_of_server_first_ports_holds_for_explicit_ports_unless_they_say_otherwise() {
    let inbound = |more: &str| {
        let text = with("ports: [{listen", &format!("{more}ports: [{{listen"));
        read(text.as_bytes(), Path::new("/")).unwrap().inbound.ports[0].protocol
    };
    assert_eq!(inbound(""), Protocol::Auto);
    assert_eq!(inbound("serverFirstPorts: [8080]\n  "), Protocol::ServerFirst);
    assert_eq!(inbound("serverFirstPorts: [25]\n  "), Protocol::Auto);
}

#[test]
fn the_budget_for_buffers_is_a_size() {
    let buffers = |written: &str| {
        let text = format!("{ISSUE}limits: {{{written}}}\n");
        read(text.as_bytes(), Path::new("/")).map(|settings| settings.limits.buffers)
    };
    assert_eq!(buffers("handshakes: 5").unwrap(), 64_000_000);
    assert_eq!(buffers("buffers: 8MiB").unwrap(), 8 << 20);
    for wrong in ["64", "64M", "none", "-1MB"] {
        let text = format!("{ISSUE}limits: {{buffers: {wrong}}}\n");
        assert_eq!(problems_of(&text), [("limits.buffers".to_owned(), "invalid-value")], "{wrong}");
    }
}

#[test]
fn limits_are_none_unless_they_are_written() {
    let settings = read(ISSUE.as_bytes(), Path::new("/")).unwrap();
    assert_eq!((settings.limits.per_identity, settings.inbound.ports[0].limit), (None, None));
    assert_eq!(settings.outbound.upstreams[0].limit, None);
    let text = format!("{}limits: {{perIdentity: 7}}\n", with("port: 8080", "port: 8080, limit: 5"))
        .replace("mode: mtls", "mode: mtls, limit: 6");
    let settings = read(text.as_bytes(), Path::new("/")).unwrap();
    assert_eq!((settings.limits.per_identity, settings.inbound.ports[0].limit), (Some(7), Some(5)));
    assert_eq!(settings.outbound.upstreams[0].limit, Some(6));
    // An empty list would refuse every peer.
    for wrong in ["0", "-1", "lots"] {
        let text = with("port: 8080", &format!("port: 8080, limit: {wrong}"));
        assert_eq!(problems_of(&text).first().unwrap().0, "inbound.ports[0].limit", "{wrong}");
    }
    for (section, field) in [("inbound:", "inbound.transparentLimit"), ("outbound:", "outbound.transparentLimit")] {
        let text = with(&format!("\n{section}"), &format!("\n{section}\n  transparentLimit: 5"));
        assert_eq!(problems_of(&text), [(field.to_owned(), "invalid-value")]);
    }
}

#[test]
fn an_app_that_gets_a_proxy_header_is_configured_and_not_server_first() {
    let inbound = |text: &str| read(text.as_bytes(), Path::new("/")).unwrap().inbound;
    assert!(!inbound(ISSUE).ports[0].proxy_protocol && inbound(ISSUE).proxy_protocol_ports.is_empty());
    assert!(inbound(&with("port: 8080", "port: 8080, proxyProtocol: v2")).ports[0].proxy_protocol);
    let captured = |more: &str| with("inbound:", &format!("inbound:\n  transparent: \"127.0.0.1:15006\"\n  {more}"));
    assert_eq!(inbound(ISSUE).proxy_protocol_identity, IdentityTlv::Portcullis);
    assert_eq!(inbound(&captured("proxyProtocolIdentity: ztunnel")).proxy_protocol_identity, IdentityTlv::Ztunnel);
    assert_eq!(inbound(&captured("proxyProtocolPorts: [80]")).proxy_protocol_ports.first(), Some(&80));
    for (text, field, reason) in [
        (with("port: 8080", "port: 8080, proxyProtocol: v1"), "inbound.ports[0].proxyProtocol", "invalid-value"),
        (captured("proxyProtocolIdentity: \"0xD0\""), "inbound.proxyProtocolIdentity", "invalid-value"),
        (with("port: 8080", "port: 8080, proxyProtocol: true"), "inbound.ports[0].proxyProtocol", "wrong-type"),
        (
            with("port: 8080", "port: 8080, proxyProtocol: v2, protocol: server-first"),
            "inbound.ports[0].proxyProtocol",
            "invalid-value",
        ),
        (with("inbound:", "inbound:\n  proxyProtocolPorts: [80]"), "inbound.proxyProtocolPorts", "invalid-value"),
        (captured("proxyProtocolPorts: [25]"), "inbound.proxyProtocolPorts", "invalid-value"),
        (captured("proxyProtocolPorts: [0]"), "inbound.proxyProtocolPorts[0]", "out-of-range"),
    ] {
        assert_eq!(problems_of(&text), [(field.to_owned(), reason)], "{text}");
    }
}

#[test]
fn the_admin_socket_stands_alone_or_beside_the_address() {
    let admin = r#"admin: {listen: "127.0.0.1:15000"}"#;
    let socket = |text: &str| {
        let settings = read(with(admin, text).as_bytes(), Path::new("/run/portcullis")).unwrap();
        let socket = settings.admin_socket.map(|socket| (socket.path, socket.for_group));
        (settings.admin.is_some(), socket)
    };
    assert_eq!(socket("admin: {socket: admin.sock}"), (false, Some(("/run/portcullis/admin.sock".into(), false))));
    let both = r#"admin: {listen: "127.0.0.1:1", socket: /run/a.sock, socketMode: "0660"}"#;
    assert_eq!(socket(both), (true, Some(("/run/a.sock".into(), true))));
    for (wrong, field, reason) in [
        (r#"admin: {socket: ""}"#, "admin.socket", "invalid-value"),
        (r#"admin: {socket: a, socketMode: "0666"}"#, "admin.socketMode", "invalid-value"),
        (r#"admin: {socket: a, socketMode: 0660}"#, "admin.socketMode", "wrong-type"),
        (r#"admin: {listen: "127.0.0.1:1", socketMode: "0660"}"#, "admin.socketMode", "invalid-value"),
        ("admin: {}", "admin", "missing-field"),
    ] {
        assert_eq!(problems_of(&with(admin, wrong)), [(field.to_owned(), reason)], "{wrong}");
    }
}

#[test]
fn a_token_file_belongs_to_admin_alone_and_is_a_path() {
    let admin = r#"admin: {listen: "127.0.0.1:15000"}"#;
    let text = with(admin, r#"admin: {listen: "0.0.0.0:15000", tokenFile: secrets/token}"#);
    let settings = read(text.as_bytes(), Path::new("/etc/portcullis")).unwrap();
    assert_eq!(settings.admin_token.as_deref(), Some(Path::new("/etc/portcullis/secrets/token")));
    assert_eq!(read(ISSUE.as_bytes(), Path::new(".")).unwrap().admin_token, None);
    for (wrong, field, reason) in [
        (r#"admin: {listen: "127.0.0.1:1", tokenFile: ""}"#, "admin.tokenFile", "invalid-value"),
        (r#"admin: {listen: "127.0.0.1:1", tokenFile: 7}"#, "admin.tokenFile", "wrong-type"),
        (r#"admin: {tokenFile: t}"#, "admin", "missing-field"),
        (r#"admin: {listen: "127.0.0.1:1", token: secret}"#, "admin.token", "unknown-field"),
        (r#"health: {listen: "127.0.0.1:1", tokenFile: t}"#, "health.tokenFile", "unknown-field"),
    ] {
        assert_eq!(problems_of(&with(admin, wrong)), [(field.to_owned(), reason)], "{wrong}");
    }
}

const FILES: &str = "identity: {files: {certificate: cert.pem, privateKey: key.pem, trustBundle: ca.pem}}";

fn source(identity: &str) -> IdentitySource {
    let settings = read(with(FILES, identity).as_bytes(), Path::new("/etc/portcullis")).unwrap();
    settings.identity.unwrap().source
}

#[test]
fn an_authority_is_read_with_its_defaults() {
    let IdentitySource::Ca(ca) = source("identity: {ca: {address: \"ca.shop:15012\", trustBundle: root.pem}}") else {
        panic!("not a CA")
    };
    assert_eq!((ca.address.to_string().as_str(), ca.server_name.as_str()), ("ca.shop:15012", "ca.shop"));
    assert_eq!((ca.key_type, ca.ttl, ca.token_file.as_ref()), (None, None, None));
    assert_eq!(ca.key_in_force(None), (KeyType::EcdsaP256, Origin::Default));
    assert_eq!(ca.ttl_in_force(), (None, Origin::Default), "the authority decides");
    let all = "identity: {ca: {address: \"[::1]:15012\", trustBundle: root.pem, tokenFile: t/token, \
               serverName: ca.example, keyType: rsa-3072, ttl: 1h}}";
    let IdentitySource::Ca(ca) = source(all) else { panic!("not a CA") };
    assert_eq!((ca.server_name.as_str(), ca.key_type), ("ca.example", Some(KeyType::Rsa3072)));
    assert_eq!(ca.ttl_in_force(), (Some(Duration::from_secs(3600)), Origin::File));
    let settings = read(with(FILES, all).as_bytes(), Path::new("/etc/portcullis")).unwrap();
    assert_eq!(settings.identity_files(), ["/etc/portcullis/root.pem", "/etc/portcullis/t/token"].map(Path::new));
}

#[test]
fn the_file_goes_before_resources_and_these_before_the_environment() {
    let short = "identity: {ca: {address: \"ca.shop:15012\", trustBundle: root.pem}}";
    let IdentitySource::Ca(mut ca) = source(short) else { panic!("not a CA") };
    let hour = Duration::from_secs(3600);
    ca.environment =
        AgentEnvironment { ttl: Some(hour), key_type: Some(KeyType::EcdsaP384), ..AgentEnvironment::default() };
    assert_eq!(ca.key_in_force(None), (KeyType::EcdsaP384, Origin::Environment));
    assert_eq!(ca.key_in_force(Some(KeyType::Rsa4096)), (KeyType::Rsa4096, Origin::Resource));
    assert_eq!(ca.ttl_in_force(), (Some(hour), Origin::Environment));
    ca.key_type = Some(KeyType::Ed25519);
    ca.ttl = Some(hour * 2);
    assert_eq!(ca.key_in_force(Some(KeyType::Rsa4096)), (KeyType::Ed25519, Origin::File));
    assert_eq!(ca.ttl_in_force(), (Some(hour * 2), Origin::File));
}

#[test]
fn the_workload_api_may_say_who_we_are() {
    let id = "spiffe://cluster.local/web/7";
    let api = format!("identity: {{workloadApi: {{socket: /run/spire/api.sock, spiffeId: \"{id}\"}}}}");
    let settings = read(with(FILES, &api).as_bytes(), Path::new("/etc/portcullis")).unwrap();
    assert_eq!(settings.own_id.as_str(), id);
    assert!(settings.identity_files().is_empty());
    let other = with(FILES, &api).replace("labels:", "spiffeId: \"spiffe://cluster.local/other\", labels:");
    assert_eq!(problems_of(&other), [("identity.workloadApi.spiffeId".to_owned(), "conflict")]);
}

#[test]
fn an_identity_has_exactly_one_source_and_says_what_is_wrong_with_it() {
    let problems = |identity: &str| problems_of(&with(FILES, identity));
    let one = |field: &str, reason| vec![(field.to_owned(), reason)];
    assert_eq!(problems("identity: {requirePrivateMode: true}"), one("identity", "missing-field"));
    let two = "identity: {ca: {address: \"a:1\", trustBundle: r}, workloadApi: {socket: s}}";
    assert_eq!(problems(two), one("identity", "conflict"));
    let ca = |more: &str| problems(&format!("identity: {{ca: {{address: \"a:1\", trustBundle: r, {more}}}}}"));
    assert_eq!(ca("keyType: dsa"), one("identity.ca.keyType", "invalid-value"));
    assert_eq!(ca("ttl: 0s"), one("identity.ca.ttl", "invalid-value"));
    assert_eq!(ca("ttl: 1500ms"), one("identity.ca.ttl", "invalid-value"));
    assert_eq!(ca("serverName: \"a b\""), one("identity.ca.serverName", "invalid-value"));
    assert_eq!(ca("token: t"), one("identity.ca.token", "unknown-field"));
    assert_eq!(problems("identity: {ca: {address: a}}").len(), 2, "no port, no bundle");
    let uri = "identity: {workloadApi: {socket: \"unix:///run/api.sock\"}}";
    assert_eq!(problems(uri), one("identity.workloadApi.socket", "invalid-value"));
    let text = with(FILES, "identity: {ca: {address: \"a:1\", trustBundle: r, keyType: dsa}}");
    let problem = read(text.as_bytes(), Path::new("")).unwrap_err().remove(0);
    assert_eq!((problem.position.line, problem.position.column), (5, 58), "{problem}");
    assert!(problem.message.contains("ecdsa-p256, ecdsa-p384, rsa-2048"), "{problem}");
}

#[test]
fn an_upstream_can_be_left_to_the_service_directory() {
    let auto = |rest: &str| with(r#"mode: mtls, identities: ["spiffe://cluster.local/ns/shop/sa/cart"]"#, rest);
    let read_mode = |text: &str| {
        read(text.as_bytes(), Path::new("/")).map(|settings| settings.outbound.upstreams[0].target.mode.clone())
    };
    assert_eq!(read_mode(&auto("mode: auto")), Ok(UpstreamMode::Auto { subset: None }));
    assert_eq!(read_mode(&auto("mode: auto, subset: v2")), Ok(UpstreamMode::Auto { subset: Some("v2".into()) }));
    for (rest, field) in [
        (r#"mode: auto, identities: ["spiffe://cluster.local/ns/shop/sa/cart"]"#, "identities"),
        ("mode: auto, service: cart", "service"),
        ("mode: plaintext, subset: v2", "subset"),
    ] {
        let expected = (format!("outbound.upstreams[0].{field}"), "invalid-value");
        assert_eq!(problems_of(&auto(rest)), [expected], "{rest}");
    }
}

#[test]
fn the_traffic_policy_has_one_name_at_a_time() {
    let outbound = |keys: &str| {
        let text = format!(
            "workload: {{name: a, namespace: b, locality: eu/a}}\noutbound: {{transparent: \"127.0.0.1:1\", {keys}}}\n"
        );
        read(text.as_bytes(), Path::new("/conf")).map_err(|problems| problems.len())
    };
    let otherwise = |keys: &str| outbound(keys).map(|settings| settings.outbound.otherwise);
    assert_eq!(otherwise("trafficPolicy: REGISTRY_ONLY"), Ok(Otherwise::Refuse));
    assert_eq!(otherwise("trafficPolicy: ALLOW_ANY"), Ok(Otherwise::Plaintext));
    assert_eq!(otherwise("otherwise: refuse"), Ok(Otherwise::Refuse));
    assert_eq!(otherwise("otherwise: refuse, trafficPolicy: REGISTRY_ONLY"), Err(1));
    assert_eq!(otherwise("trafficPolicy: allow_any"), Err(1));
    let settings = outbound("downgrade: refuse, tlsFolder: tls").unwrap();
    assert_eq!(settings.outbound.downgrade, Downgrade::Refuse);
    assert_eq!(settings.outbound.tls_folder.as_deref(), Some(Path::new("/conf/tls")));
    assert_eq!(settings.locality.as_deref(), Some("eu/a"));
    for bad in ["eu//a", "", "a/b/c/d", "/a"] {
        let text = format!("workload: {{name: a, namespace: b, locality: \"{bad}\"}}");
        assert_eq!(problems_of(&text), [("workload.locality".into(), "invalid-value")], "{bad}");
    }
}

#[test]
fn services_are_documents_of_the_directory() {
    let text = |kind: &str, spec: &str| {
        format!(
            "workload: {{name: a, namespace: b}}\nservices:\n  - apiVersion: networking.istio.io/v1\n    kind: {kind}\n    \
             metadata: {{name: cart, namespace: shop}}\n    spec: {spec}\n"
        )
    };
    let good =
        text("ServiceEntry", "{hosts: [cart.shop.svc.cluster.local], resolution: DNS, endpoints: [{address: cart}]}");
    let settings = read(good.as_bytes(), Path::new("/")).unwrap();
    let services = settings.services.unwrap();
    assert_eq!(services.names().collect::<Vec<_>>(), [("ServiceEntry", "shop", "cart")]);
    let bad = read(text("ServiceEntry", "{hosts: [cart], colour: red}").as_bytes(), Path::new("/")).unwrap_err();
    assert!(bad.iter().any(|problem| problem.reason == "unknown-field" && problem.position.line == 6), "{bad:?}");
    let other = read(text("DestinationRule", "{host: cart}").as_bytes(), Path::new("/")).unwrap_err();
    assert_eq!(other[0].reason, "unsupported-kind");
}

#[test]
fn the_ledger_has_a_folder_of_its_own_and_a_limit() {
    let settings = |text: &str| {
        let text = format!("workload: {{name: a, namespace: b}}\n{text}");
        read(text.as_bytes(), Path::new("/conf")).unwrap().ledger
    };
    assert_eq!(settings(""), LedgerSettings { folder: None, max_pairs: 10_000, reverse_dns: true });
    let problems = |text: &str| problems_of(&format!("workload: {{name: a, namespace: b}}\n{text}"));
    let one = |field: &str, reason| vec![(field.to_owned(), reason)];
    let own = settings("ledger: {folder: seen, maxPairs: 500, reverseDns: false}\npolicies: seen-not");
    assert_eq!(own, LedgerSettings { folder: Some("/conf/seen".into()), max_pairs: 500, reverse_dns: false });
    assert_eq!(problems("ledger: {maxPairs: 5}"), one("ledger.maxPairs", "out-of-range"));
    for shared in
        ["policies: seen", "policies: seen/policies", "admin: {listen: \"127.0.0.1:1\", tokenFile: seen/token}"]
    {
        assert_eq!(
            problems(&format!("ledger: {{folder: seen}}\n{shared}")),
            one("ledger.folder", "conflict"),
            "{shared}"
        );
    }
}
