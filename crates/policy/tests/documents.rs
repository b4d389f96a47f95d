//! Kinds, positions, duplicates: what a folder of real files meets.

use portcullis_policy::{PolicySet, Source};

fn load(texts: &[&str]) -> portcullis_policy::Loaded {
    let file = |(n, text): (usize, &&str)| Source { file: format!("{n}.yaml"), text: text.as_bytes().to_vec() };
    PolicySet::load(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

fn reasons(texts: &[&str]) -> Vec<&'static str> {
    load(texts).errors.iter().map(|error| error.reason).collect()
}

const GOOD: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\n";

#[test]
fn three_faults_are_three_errors_with_their_places() {
    let text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: a\n  namespace: shop\nspec:\n  \
                selector:\n    matchLabels: {app: 'x*'}\n  mtls: {mode: strict}\n  portLevelMtls:\n    8080:\n      mode: OFF\n";
    let loaded = load(&[text]);
    let found: Vec<_> = loaded.errors.iter().map(|e| (e.line, e.field.as_str(), e.reason)).collect();
    assert!(found.contains(&(8, "spec.selector.matchLabels[app]", "selector-wildcard")), "{found:?}");
    assert!(found.contains(&(9, "spec.mtls.mode", "unsupported-mode")), "{found:?}");
    assert!(found.contains(&(12, "spec.portLevelMtls[8080].mode", "wrong-type")), "{found:?}");
    assert!(loaded.set.policies().is_empty());
}

#[test]
fn lists_are_opened_and_foreign_kinds_are_never_silent() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: security.istio.io/v1beta1\n  kind: PeerAuthentication\n  \
                metadata: {name: a, namespace: shop, uid: x, resourceVersion: '1'}\n  status: {}\n";
    assert_eq!(load(&[list]).set.policies().len(), 1);
    let kind = |version: &str, kind: &str| format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n");
    assert_eq!(reasons(&[&kind("security.istio.io/v1", "AuthorizationPolicy")]), ["unsupported-kind"]);
    assert_eq!(reasons(&[&kind("networking.istio.io/v1", "DestinationRule")]), ["unsupported-kind"]);
    assert_eq!(reasons(&[&kind("security.istio.io/v1", "peerauthentication")]), ["unknown-kind"]);
    assert_eq!(reasons(&[&kind("security.istio.io/v1alpha1", "PeerAuthentication")]), ["unknown-kind"]);
    assert_eq!(reasons(&["a: 1\n"]), ["unknown-kind"]);
    let other = load(&[&kind("v1", "Service")]);
    assert_eq!((other.errors.len(), other.warnings.first().map(|w| w.reason)), (0, Some("ignored-kind")));
}

#[test]
fn a_duplicate_names_both_places() {
    let loaded = load(&[GOOD, GOOD]);
    let error = loaded.errors.first().unwrap();
    assert_eq!((error.reason, error.file.as_str()), ("duplicate-resource", "1.yaml"));
    assert!(error.message.contains("0.yaml:1"), "{}", error.message);
}

#[test]
fn ports_are_decimal_digits() {
    let with = |port: &str| {
        format!("{GOOD}spec: {{selector: {{matchLabels: {{a: b}}}}, portLevelMtls: {{{port}: {{mode: STRICT}}}}}}\n")
    };
    for (port, reason) in [
        ("0x50", "port-not-integer"),
        ("+80", "port-not-integer"),
        ("080", "port-not-integer"),
        ("8e1", "port-not-integer"),
        ("'0'", "port-out-of-range"),
        ("-1", "port-out-of-range"),
        ("99999999999999999999", "port-out-of-range"),
    ] {
        assert_eq!(reasons(&[&with(port)]), [reason], "{port}");
    }
    assert!(reasons(&[&with("8080: {mode: STRICT}, '8080'")]).contains(&"duplicate-key"));
    assert_eq!(reasons(&[&format!("{GOOD}spec: {{mtls: null}}\n")]), ["wrong-type"]);
    assert_eq!(reasons(&[&format!("{GOOD}spec:\n")]), [] as [&str; 0]);
    assert_eq!(
        reasons(&["apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n"]),
        ["missing-namespace"]
    );
}
