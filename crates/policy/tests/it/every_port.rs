//! A ServiceEntry of a program that does not know on which ports an app listens: every port, each with its mode.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_policy::directory::{Choice, Client, Directory, EVERY_PORT, Lookup, Transport};
use portcullis_policy::{MeshSettings, ParsedSource, PolicySet};
use portcullis_yaml::Cursor;

const ENTRY: &str = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: shop}
spec:
  hosts: [cart.shop.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: DNS
  endpoints: [{address: cart, labels: {app: cart}, serviceAccount: cart}]
";
const POLICY: &str = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: cart, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  portLevelMtls: {9090: {mode: DISABLE}}
";

fn embedded(text: &str) -> ParsedSource {
    let tree = portcullis_yaml::parse(text.as_bytes());
    ParsedSource::embedded("config", &tree.documents.iter().map(Cursor::root).collect::<Vec<_>>())
}

fn directory(sources: &[ParsedSource]) -> Directory {
    let loaded = PolicySet::assemble(sources);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    let client = Client { namespace: "shop", labels: &BTreeMap::new(), locality: None };
    Directory::resolve(&loaded.set, &MeshSettings::default(), &client)
}

#[test]
fn every_port_is_reached_by_its_own_mode() {
    let directory = directory(&[ParsedSource::new("policy", POLICY.as_bytes()), embedded(ENTRY)]);
    let names: [Arc<str>; 1] = ["cart".into()];
    let found = |port: u16| match directory.find(format!("10.0.0.7:{port}").parse().unwrap(), &names) {
        Lookup::Found(found) => match found.choice {
            Choice::Any([endpoint]) => (found.port.number, endpoint.port, endpoint.transport.label()),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    assert_eq!(found(8080), (EVERY_PORT, EVERY_PORT, "mtls"));
    assert_eq!(found(5432), (EVERY_PORT, EVERY_PORT, "mtls"));
    assert_eq!(found(9090), (9090, 9090, "plaintext"));
    assert!(matches!(directory.by_host("cart", 1234, None), Lookup::Found(_)));
    assert!(matches!(directory.find("10.0.0.7:8080".parse().unwrap(), &[]), Lookup::Unknown));
    assert!(directory.may_own(8080, &|name| name == "cart") && !directory.may_own(8080, &|_| false));
    let Lookup::Found(found) = directory.by_host("cart", 80, None) else { panic!() };
    let Choice::Any([endpoint]) = found.choice else { panic!() };
    assert!(
        matches!(&endpoint.transport, Transport::Mtls { sni, .. } if **sni == *"outbound_.0_._.cart.shop.svc.cluster.local")
    );
}

#[test]
fn a_file_replaces_what_is_embedded_and_must_list_its_ports() {
    let file = ParsedSource::new("file", ENTRY.as_bytes());
    assert_eq!(file.errors()[0].reason, "missing-field", "{:?}", file.errors());
    let listed = ENTRY.replace("  endpoints:", "  ports: [{number: 80, name: http}]\n  endpoints:");
    let directory = directory(&[ParsedSource::new("file", listed.as_bytes()), embedded(ENTRY)]);
    assert!(matches!(directory.by_host("cart", 80, None), Lookup::Found(_)));
    assert!(matches!(directory.by_host("cart", 81, None), Lookup::NoPort));
}

/// Compose writes entries for every port. A declared port of another service that has the address by its name must not take the
/// security away.
#[test]
fn plaintext_by_a_name_conflicts_with_a_secured_claim() {
    let external = "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 8080, name: http}]}
";
    let directory = directory(&[ParsedSource::new("file", external.as_bytes()), embedded(ENTRY)]);
    let names: [Arc<str>; 2] = ["api.example.com".into(), "cart".into()];
    let find = |port: u16, names: &[Arc<str>]| match directory.find(format!("10.0.0.7:{port}").parse().unwrap(), names)
    {
        Lookup::Conflict(labels) => labels.join(" "),
        Lookup::Found(found) => found.service.label(),
        other => panic!("{other:?}"),
    };
    assert_eq!(find(8080, &names), "shop/api shop/cart");
    assert_eq!(find(8080, &names[..1]), "api.example.com");
    assert_eq!(find(9000, &names), "cart.shop.svc.cluster.local");
}

/// Whoever may write into another namespace must not take over a short form of a name.
#[test]
fn two_spellings_of_a_host_conflict() {
    let entry = |host: &str, namespace: &str, account: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: x, namespace: {namespace}}}\nspec: {{hosts: \
             [{host}], location: MESH_INTERNAL, resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{{address: \
             10.0.0.1{account}}}]}}\n"
        )
    };
    let mesh = entry("cart.data.svc.cluster.local", "data", ", serviceAccount: cart");
    let evil = entry("cart.data", "evil", "");
    let sources = [ParsedSource::new("mesh", mesh.as_bytes()), ParsedSource::new("evil", evil.as_bytes())];
    assert!(matches!(directory(&sources).by_host("cart.data", 80, None), Lookup::Conflict(_)));
    assert!(matches!(directory(&sources[..1]).by_host("cart.data", 80, None), Lookup::Found(_)));
}
