//! What `explain` says, as JSON and to a person.

use std::collections::BTreeMap;

use portcullis_policy::{Explanation, MeshSettings, PolicySet, Source, explain};
use serde_json::{Value, json};

fn source(file: &str, namespace: &str, name: &str, spec: &str) -> Source {
    let text = format!(
        "# {file}\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    );
    Source { file: file.to_owned(), text: text.into_bytes() }
}

fn explained(port: u16) -> Explanation {
    let cart = "{selector: {matchLabels: {app: cart}}, portLevelMtls: {8080: {mode: DISABLE}, 9090: {mode: UNSET}}}";
    let loaded = PolicySet::load(&[
        source("mesh.yaml", "istio-system", "default", "{mtls: {mode: STRICT}}"),
        source("root.yaml", "istio-system", "picky", "{selector: {matchLabels: {app: cart}}}"),
        source("shop.yaml", "shop", "default", "{mtls: {mode: UNSET}}"),
        source("cart.yaml", "shop", "cart", cart),
        source("late.yaml", "shop", "cart-2", "{selector: {matchLabels: {app: cart}}, mtls: {mode: PERMISSIVE}}"),
        source("ledger.yaml", "shop", "ledger", "{selector: {matchLabels: {app: ledger}}}"),
        source("billing.yaml", "billing", "default", "{}"),
    ]);
    assert_eq!(loaded.errors, []);
    let labels = BTreeMap::from([("app".to_owned(), "cart".to_owned())]);
    explain(&loaded.set, &MeshSettings::default(), "shop", &labels, port)
}

fn by(scope: &str, namespace: &str, name: &str, file: &str) -> Value {
    json!({"scope": scope, "namespace": namespace, "name": name, "file": file, "line": 2})
}

fn with(mut value: Value, more: Value) -> Value {
    let Value::Object(more) = more else { return value };
    value.as_object_mut().unwrap().extend(more);
    value
}

#[test]
fn the_json_is_the_one_that_programs_rely_on() {
    let ignored = json!([
        with(by("workload", "istio-system", "picky", "root.yaml"), json!({"reason": "root-selector"})),
        with(by("workload", "shop", "cart-2", "late.yaml"), json!({"reason": "shadowed"})),
        with(by("workload", "shop", "ledger", "ledger.yaml"), json!({"reason": "selector-mismatch"})),
        with(by("namespace", "billing", "default", "billing.yaml"), json!({"reason": "other-namespace"})),
    ]);
    let rung = |scope, namespace, name, file, mode, applied| {
        with(by(scope, namespace, name, file), json!({"mode": mode, "applied": applied}))
    };
    let ladder = |mesh_applied| {
        vec![
            rung("mesh", "istio-system", "default", "mesh.yaml", "STRICT", mesh_applied),
            rung("namespace", "shop", "default", "shop.yaml", "UNSET", false),
            rung("workload", "shop", "cart", "cart.yaml", "UNSET", false),
        ]
    };
    let mut with_port = ladder(false);
    with_port.push(rung("port", "shop", "cart", "cart.yaml", "DISABLE", true));
    assert_eq!(
        serde_json::to_value(explained(8080)).unwrap(),
        json!({
            "port": 8080, "mode": "DISABLE", "decidedBy": by("port", "shop", "cart", "cart.yaml"),
            "ladder": with_port, "ignored": ignored,
        })
    );
    let mut unset = ladder(true);
    unset.push(rung("port", "shop", "cart", "cart.yaml", "UNSET", false));
    assert_eq!(
        serde_json::to_value(explained(9090)).unwrap(),
        json!({
            "port": 9090, "mode": "STRICT", "decidedBy": by("mesh", "istio-system", "default", "mesh.yaml"),
            "ladder": unset, "ignored": ignored,
        })
    );
}

#[test]
fn nothing_defined_is_the_default_with_nulls() {
    let explained = explain(&PolicySet::default(), &MeshSettings::default(), "shop", &BTreeMap::new(), 80);
    assert_eq!(
        serde_json::to_value(&explained).unwrap(),
        json!({
            "port": 80, "mode": "PERMISSIVE",
            "decidedBy": {"scope": "default", "namespace": null, "name": null, "file": null, "line": null},
            "ladder": [], "ignored": [],
        })
    );
    assert_eq!(explained.to_string(), "port 80: PERMISSIVE, decided by default, since no policy says anything\n");
}

#[test]
fn policies_of_many_other_namespaces_are_only_counted() {
    let lines = |count: usize| {
        let sources: Vec<_> = (0..count).map(|n| source("x.yaml", &format!("other-{n}"), "default", "{}")).collect();
        let set = PolicySet::load(&sources).set;
        let explained = explain(&set, &MeshSettings::default(), "shop", &BTreeMap::new(), 80).to_string();
        explained.lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let five = lines(5);
    assert_eq!(five.len(), 5);
    assert!(five.iter().all(|line| line.contains("it is of another namespace")), "{five:?}");
    assert_eq!(lines(6), ["   6 policies of other namespaces (other-namespace)"]);
}

#[test]
fn a_person_reads_the_ladder_and_the_losers() {
    let wanted = "\
port 8080: DISABLE, decided by portLevelMtls of shop/cart (cart.yaml:2)
   mesh       STRICT      istio-system/default (mesh.yaml:2)
   namespace  UNSET       shop/default (shop.yaml:2)
   workload   UNSET       shop/cart (cart.yaml:2)
=> port       DISABLE     shop/cart (cart.yaml:2)
ignored:
   istio-system/picky (root.yaml:2): a policy with a selector has no effect in the root namespace (root-selector)
   shop/cart-2 (late.yaml:2): another policy of its scope is older, or comes first by name (shadowed)
   shop/ledger (ledger.yaml:2): its selector does not match these labels (selector-mismatch)
   billing/default (billing.yaml:2): it is of another namespace (other-namespace)
";
    assert_eq!(explained(8080).to_string(), wanted);
    assert!(explained(1).to_string().starts_with("port 1: STRICT, decided by the mesh policy istio-system/default"));
}
