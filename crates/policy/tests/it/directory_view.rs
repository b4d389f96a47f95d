//! What the directory says beside transports and look-ups: settings, files, names at risk, overview, size.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::directory::{Choice, Client, Directory, LoadBalancer, Lookup, OutlierDetection, Transport};
use portcullis_policy::{MeshSettings, PolicySet, Source};
use serde_json::json;

const LABELS: &BTreeMap<String, String> = &BTreeMap::new();

fn load(text: &str) -> PolicySet {
    let loaded = PolicySet::load(&[Source { file: "mesh.yaml".to_owned(), text: text.as_bytes().to_vec() }]);
    assert_eq!(loaded.errors, []);
    loaded.set
}

fn resolve(text: &str) -> Directory {
    let client = Client { namespace: "shop", labels: LABELS, locality: None };
    Directory::resolve(&load(text), &MeshSettings::default(), &client)
}

const CART: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart]
  location: MESH_INTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, targetPort: 8080}, {number: 81, name: admin}]
  endpoints: [{address: cart-1, serviceAccount: cart, locality: eu/1}, {address: cart-2}]
";

#[test]
fn settings_come_from_the_narrowest_level_that_has_them() {
    let rule = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: cart, namespace: shop}
spec:
  host: cart
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    outlierDetection: {consecutive5xxErrors: 7, consecutiveGatewayErrors: 3, interval: 1s, maxEjectionPercent: 50}
    portLevelSettings:
    - {port: {number: 81}, outlierDetection: {consecutiveLocalOriginFailures: 0}}
  subsets:
  - {name: v1, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}
  - {name: v2, trafficPolicy: {outlierDetection: {}}}
";
    let directory = resolve(&format!("{CART}{rule}"));
    let settings = |port, subset| {
        let Lookup::Found(found) = directory.by_host("cart", port, subset) else { panic!("{port}") };
        (found.port.load_balancer, found.port.outlier_detection.unwrap())
    };
    let outlier = |failures, interval, percent| OutlierDetection {
        consecutive_failures: NonZeroU32::new(failures),
        interval: Duration::from_secs(interval),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_percent: percent,
    };
    assert_eq!(settings(80, None), (LoadBalancer::Random, outlier(3, 1, 50)));
    // A counter of 0 is switched off, and no other one is set.
    assert_eq!(settings(81, None), (LoadBalancer::Random, outlier(0, 10, 10)));
    assert_eq!(settings(80, Some("v1")), (LoadBalancer::RoundRobin, outlier(3, 1, 50)));
    assert_eq!(settings(81, Some("v2")), (LoadBalancer::Random, outlier(5, 10, 10)));
    let plain = resolve(CART);
    let Lookup::Found(found) = plain.by_host("cart", 80, None) else { panic!() };
    assert_eq!((found.port.load_balancer, found.port.outlier_detection), (LoadBalancer::LeastRequest, None));
}

#[test]
fn a_name_that_fails_puts_its_secured_ports_at_risk() {
    let directory = resolve(CART);
    let failed = |wanted: &'static str| move |name: &str| name == wanted;
    for (port, name, expected) in [
        (80, "cart-1", true),
        (8080, "cart-1", true),
        (81, "cart-1", true),
        (82, "cart-1", false),
        // Its endpoint has no sidecar: plaintext is what it gets anyway.
        (80, "cart-2", false),
        // What the host resolves to may be the endpoint that has one.
        (80, "cart", true),
    ] {
        assert_eq!(directory.may_own(port, &failed(name)), expected, "{port} {name}");
    }
    assert!(!directory.may_own(80, &|_| false));
    let names: Vec<_> = directory.secured_names(80).unwrap().iter().map(|name| name.to_string()).collect();
    assert_eq!(names, ["cart", "cart-1"]);
    let outside = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.test], ports: [{number: 443, name: tls}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec: {host: api.test, trafficPolicy: {tls: {mode: SIMPLE}}}
";
    assert!(resolve(outside).may_own(443, &failed("api.test")));
    let plain = outside.replace("SIMPLE", "DISABLE");
    assert!(!resolve(&plain).may_own(443, &failed("api.test")));
}

#[test]
fn files_of_rules_are_listed_once() {
    let rule = |name: &str, host: &str, tls: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{host: {host}, trafficPolicy: {{tls: {tls}}}}}\n"
        )
    };
    let mutual = "{mode: MUTUAL, clientCertificate: c.pem, privateKey: k.pem, caCertificates: ca.pem}";
    let text = format!(
        "{CART}{}{}",
        rule("a", "cart", mutual),
        rule("b", "unused.test", "{mode: SIMPLE, caCertificates: x.pem}")
    );
    let directory = resolve(&text);
    let files: Vec<_> = directory.tls_files().iter().map(ToString::to_string).collect();
    assert_eq!(files, ["c.pem", "ca.pem", "k.pem"]);
    // Two ports and two endpoints use the one.
    assert_eq!(directory.originations().len(), 1);
    assert!(resolve(CART).tls_files().is_empty());
}

/// A reload asks whether anything changed.
#[test]
fn a_directory_equals_one_that_reaches_everything_alike() {
    let one = resolve(CART);
    assert_eq!(one, resolve(CART));
    assert_ne!(one, resolve(&CART.replace("serviceAccount: cart", "serviceAccount: other")));
    let policy = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: MODE}}\n";
    let with = |mode: &str| resolve(&format!("{CART}{}", policy.replace("MODE", mode)));
    assert_ne!(with("DISABLE"), with("STRICT"));
    let other = Client { namespace: "web", labels: LABELS, locality: None };
    assert_ne!(one, Directory::resolve(&load(CART), &MeshSettings::default(), &other), "short names differ");
}

#[test]
fn the_overview_says_how_and_why() {
    let policy = "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: shop}
spec: {mtls: {mode: STRICT}}
";
    let directory = resolve(&format!("{CART}{policy}"));
    let shown = serde_json::to_value(directory.overview()).unwrap();
    let service = &shown["services"][0];
    assert_eq!(service["host"], "cart.shop.svc.cluster.local");
    assert_eq!(
        (&service["entry"], &service["file"], &service["line"]),
        (&json!("shop/cart"), &json!("mesh.yaml"), &json!(2))
    );
    assert_eq!((&service["location"], &service["resolution"]), (&json!("MESH_INTERNAL"), &json!("DNS")));
    assert_eq!(
        service["ports"][0]["endpoints"][0],
        json!({
            "address": "cart-1", "port": 8080, "priority": 0, "weight": 1, "locality": "eu/1", "serviceAccount": "cart",
            "hasSidecar": true,
            "transport": {
                "transport": "mtls", "reason": "auto", "sni": "outbound_.80_._.cart.shop.svc.cluster.local",
                "why": "the endpoint has a sidecar, and PeerAuthentication shop/strict (mesh.yaml:12) sets STRICT for its port",
                "identities": ["spiffe://cluster.local/ns/shop/sa/cart"], "file": "mesh.yaml", "line": 12,
            },
        })
    );
    let plain = &service["ports"][0]["endpoints"][1]["transport"];
    assert_eq!(
        *plain,
        json!({"transport": "plaintext", "reason": "no_sidecar", "why": "no sidecar is declared for the endpoint"})
    );
    let found = serde_json::to_value(directory.by_host("cart", 81, None).overview()).unwrap();
    assert_eq!((&found["result"], found["service"]["ports"].as_array().unwrap().len()), (&json!("found"), 1));
    assert_eq!(found["service"]["ports"][0]["number"], 81);
    let unknown = serde_json::to_value(directory.by_host("web", 81, None).overview()).unwrap();
    assert_eq!(unknown, json!({"result": "unknown"}));
}

/// Each reason in one sentence, with the place of what decided.
#[test]
fn sentences_name_what_decided() {
    let rule = |tls: &str| {
        format!(
            "{CART}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: shop}}\nspec: {{host: cart, trafficPolicy: {{tls: {tls}}}}}\n"
        )
    };
    let disable = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: DISABLE}}\n";
    let undeclared = CART.replace("serviceAccount: cart", "labels: {security.istio.io/tlsMode: istio}");
    for (text, expected) in [
        (
            CART.to_owned(),
            "mTLS with spiffe://cluster.local/ns/shop/sa/cart: the endpoint has a sidecar, and the default of the mesh sets PERMISSIVE for its port",
        ),
        (CART.replace("MESH_INTERNAL", "MESH_EXTERNAL"), "plaintext: the service is outside of the mesh"),
        (format!("{CART}{disable}"), "plaintext: PeerAuthentication shop/p (mesh.yaml:12) sets DISABLE for its port"),
        (rule("{mode: DISABLE}"), "plaintext: DestinationRule shop/r (mesh.yaml:12) sets DISABLE"),
        (rule("{mode: SIMPLE}"), "TLS: DestinationRule shop/r (mesh.yaml:12) sets SIMPLE"),
        (
            rule("{mode: MUTUAL, clientCertificate: c, privateKey: k}"),
            "TLS: DestinationRule shop/r (mesh.yaml:12) sets MUTUAL",
        ),
        (
            rule("{mode: ISTIO_MUTUAL}"),
            "mTLS with spiffe://cluster.local/ns/shop/sa/cart: DestinationRule shop/r (mesh.yaml:12) sets ISTIO_MUTUAL",
        ),
        (
            rule("{mode: ISTIO_MUTUAL, subjectAltNames: [x]}"),
            "mTLS with nobody: DestinationRule shop/r (mesh.yaml:12) sets ISTIO_MUTUAL, but subjectAltNames of DestinationRule shop/r (mesh.yaml:12) hold no SPIFFE ID, so no identity is accepted",
        ),
        (
            undeclared,
            "mTLS with nobody: the endpoint has a sidecar, and the default of the mesh sets PERMISSIVE for its port, but it has no serviceAccount, and its ServiceEntry no SPIFFE ID in subjectAltNames, so no identity is accepted",
        ),
    ] {
        let directory = resolve(&text);
        assert_eq!(directory.services()[0].ports[0].endpoints[0].transport.to_string(), expected);
    }
}

#[test]
fn an_unknown_destination_costs_no_allocation() {
    let (empty, directory) = (resolve(""), resolve(CART));
    assert!(empty.is_empty() && !directory.is_empty());
    let names: [Arc<str>; 1] = ["other".into()];
    let destination = "[::ffff:192.0.2.1]:80".parse().unwrap();
    for directory in [&empty, &directory] {
        let measured = allocation_counter::measure(|| {
            assert!(matches!(directory.find(destination, &names), Lookup::Unknown));
        });
        assert_eq!(measured.count_total, 0);
    }
    let names: [Arc<str>; 1] = ["cart-1".into()];
    let measured = allocation_counter::measure(|| {
        assert!(matches!(directory.find(destination, &names), Lookup::Found(_)));
    });
    assert_eq!(measured.count_total, 0);
}

const COUNT: usize = 10_000;

/// Ten thousand workloads with a policy for each, behind a thousand services with a rule for each, all in one namespace: whatever
/// grows with the square of that would take minutes.
#[test]
fn ten_thousand_workloads_and_policies_are_resolved() {
    const SERVICES: usize = COUNT / 10;
    let mut files = Vec::new();
    for chunk in 0..COUNT / 500 {
        let mut text = String::new();
        for n in chunk * 500..(chunk + 1) * 500 {
            let mode = if n.is_multiple_of(2) { "STRICT" } else { "DISABLE" };
            let (high, low, service) = (n / 250, n % 250, n % SERVICES);
            if n < SERVICES {
                write!(
                    text,
                    "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: s{n}, namespace: shop}}\nspec: {{hosts: [s{n}], location: MESH_INTERNAL, resolution: STATIC, addresses: [10.1.{high}.{low}], ports: [{{number: 80, name: http, targetPort: 8080}}], workloadSelector: {{labels: {{app: s{n}, tier: back}}}}}}\n\
                     ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: s{n}, namespace: shop}}\nspec: {{host: s{n}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}\n"
                )
                .unwrap();
            }
            write!(
                text,
                "---\napiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: w{n}, namespace: shop}}\nspec: {{address: 10.2.{high}.{low}, labels: {{app: s{service}, id: w{n}, tier: back}}, serviceAccount: w{n}}}\n\
                 ---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p{n}, namespace: shop}}\nspec: {{selector: {{matchLabels: {{id: w{n}, tier: back}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {{80: {{mode: STRICT}}}}}}\n"
            )
            .unwrap();
        }
        files.push(Source { file: format!("{chunk:03}.yaml"), text: text.into_bytes() });
    }
    let loaded = PolicySet::load(&files);
    assert_eq!((loaded.errors.len(), loaded.documents), (0, 2 * COUNT + 2 * SERVICES));
    // Every policy names the port of the service.
    assert_eq!(loaded.warnings.len(), COUNT);
    assert!(loaded.warnings.iter().all(|warning| warning.reason == "service-port"));
    let client = Client { namespace: "shop", labels: LABELS, locality: None };
    let directory = Directory::resolve(&loaded.set, &MeshSettings::default(), &client);
    assert_eq!(directory.services().len(), SERVICES);
    for (n, secured) in [(4242, true), (4243, false)] {
        let destination = format!("10.2.{}.{}:8080", n / 250, n % 250);
        let Lookup::Found(found) = directory.find(destination.parse().unwrap(), &[]) else { panic!("{destination}") };
        let Choice::One(endpoint) = found.choice else { panic!("{destination}") };
        assert_eq!(endpoint.service_account.as_deref(), Some(&*format!("w{n}")));
        assert_eq!(matches!(endpoint.transport, Transport::Mtls { .. }), secured);
        assert_eq!(found.port.load_balancer, LoadBalancer::Random);
        let virtual_address = format!("10.1.{}.{}:80", n % SERVICES / 250, n % SERVICES % 250);
        let Lookup::Found(found) = directory.find(virtual_address.parse().unwrap(), &[]) else { panic!("{n}") };
        assert_eq!(found.choice.endpoints().len(), COUNT / SERVICES);
        assert!(found.choice.endpoints().iter().any(|other| Arc::ptr_eq(other, endpoint)));
    }
}

/// Ten thousand endpoints of one service: each address leads to its own.
#[test]
fn ten_thousand_endpoints_of_one_service() {
    let mut text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: s, namespace: shop}\nspec:\n  hosts: [s]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{number: 80, name: http}]\n  endpoints:\n".to_owned();
    for n in 0..COUNT {
        writeln!(text, "  - {{address: 10.2.{}.{}, serviceAccount: w{n}, labels: {{app: w{n}}}}}", n / 250, n % 250)
            .unwrap();
    }
    let directory = resolve(&text);
    let Lookup::Found(found) = directory.by_host("s", 80, None) else { panic!() };
    assert_eq!(found.choice.endpoints().len(), COUNT);
    let Lookup::Found(found) = directory.find("10.2.39.249:80".parse().unwrap(), &[]) else { panic!() };
    let Choice::One(endpoint) = found.choice else { panic!() };
    assert_eq!(endpoint.service_account.as_deref(), Some("w9999"));
}
