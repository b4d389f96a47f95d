//! Kinds, positions, duplicates: what a folder of real files meets.

use portcullis_policy::{Diagnostic, Mode, PolicySet, Source};

fn load(texts: &[&str]) -> portcullis_policy::Loaded {
    let file = |(n, text): (usize, &&str)| Source { file: format!("{n}.yaml"), text: text.as_bytes().to_vec() };
    PolicySet::load(&texts.iter().enumerate().map(file).collect::<Vec<_>>())
}

fn reasons(texts: &[&str]) -> Vec<&'static str> {
    load(texts).errors.iter().map(|error| error.reason).collect()
}

const GOOD: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a, namespace: shop}\n";

/// "line:column field reason" of each.
fn places(found: &[Diagnostic]) -> Vec<String> {
    found.iter().map(|d| format!("{}:{} {} {}", d.line, d.column, d.field, d.reason)).collect()
}

fn kind(version: &str, kind: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n")
}

/// As `kubectl get -o json` writes it, and as other tools do: tabs, CRLF, one line, escapes.
#[test]
fn a_json_document_is_read_like_its_yaml() {
    let one = r#"{"apiVersion":"security.istio.io/v1","kind":"PeerAuthentication","metadata":{"name":"a","namespace":"shop",
        "annotations":{"note":"a\/b \u00e9 \"x\""}},"spec":{"selector":{"matchLabels":{"app":"cart"}},
        "mtls":{"mode":"STRICT"},"portLevelMtls":{"8080":{"mode":"DISABLE"}}}}"#;
    let list = format!(
        "{{\r\n\t\"apiVersion\": \"v1\",\r\n\t\"kind\": \"List\",\r\n\t\"items\": [\r\n\t\t{one}\r\n\t]\r\n}}\r\n"
    );
    for text in [one.to_owned(), list] {
        let loaded = load(&[&text]);
        assert!(loaded.errors.is_empty() && loaded.documents == 1, "{text}: {:?}", loaded.errors);
        let policy = &loaded.set.policies()[0];
        assert_eq!((policy.mode, policy.ports.get(&8080)), (Some(Mode::Strict), Some(&Some(Mode::Disable))));
        assert_eq!(policy.selector.get("app").map(String::as_str), Some("cart"));
    }
    let twice = r#"{"apiVersion":"security.istio.io/v1","kind":"PeerAuthentication","kind":"PeerAuthentication"}"#;
    assert!(reasons(&[twice]).contains(&"duplicate-key"), "{:?}", reasons(&[twice]));
}

#[test]
fn all_faults_of_all_files_come_out_in_one_run() {
    let first = "apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: Bad_Name
  namespace: shop
  creationTimestamp: yesterday
spec:
  selector:
    matchLabels:
      app*: x
      tier: 'b*'
      '': y
      ver: 2
  mtls:
    mode: strict
  portLevelMtls:
    8080:
      mode: OFF
    http: {mode: STRICT}
    70000: {mod: STRICT}
    90: ~
---
a: [
---
kind: PeerAuthentication
";
    let loaded = load(&[first, "apiVersion: v1\nkind: Secret\n", "a: 1\na: 2\n"]);
    assert_eq!(
        places(&loaded.errors),
        [
            "4:9 metadata.name invalid-name",
            "6:22 metadata.creationTimestamp invalid-timestamp",
            "10:7 spec.selector.matchLabels[app*] selector-wildcard",
            "11:13 spec.selector.matchLabels[tier] selector-wildcard",
            "12:7 spec.selector.matchLabels[] selector-empty-key",
            "13:12 spec.selector.matchLabels[ver] wrong-type",
            "15:11 spec.mtls.mode unsupported-mode",
            "18:13 spec.portLevelMtls[8080].mode wrong-type",
            "19:5 spec.portLevelMtls[http] port-not-integer",
            "20:5 spec.portLevelMtls[70000] port-out-of-range",
            "20:13 spec.portLevelMtls[70000].mod unknown-field",
            "21:9 spec.portLevelMtls[90] wrong-type",
            "23:4  yaml-syntax",
            "25:1  unknown-kind",
            "1:1  unknown-kind",
            "2:1 a duplicate-key",
        ]
    );
    assert_eq!(places(&loaded.warnings), ["1:1  ignored-kind"]);
    assert_eq!(loaded.documents, 4);
    assert!(loaded.set.policies().is_empty());
    let text = loaded.errors[6].to_string();
    assert_eq!(
        text,
        "0.yaml:15:11: spec.mtls.mode: \"strict\" is not a mode; letter case counts: write STRICT [unsupported-mode]"
    );
}

#[test]
fn lists_are_opened_and_their_items_keep_their_places() {
    let item = |name: &str| {
        format!(
            "- apiVersion: security.istio.io/v1beta1\n  kind: PeerAuthentication\n  metadata: {{name: {name}, namespace: shop, \
             uid: x, resourceVersion: '1'}}\n  status: {{}}\n"
        )
    };
    for (version, kind) in [("v1", "List"), ("security.istio.io/v1", "PeerAuthenticationList")] {
        let list = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{resourceVersion: ''}}\nitems:\n");
        let loaded = load(&[&format!("{list}{}{}", item("a"), item("b"))]);
        assert_eq!((loaded.errors.as_slice(), loaded.documents), (&[] as &[Diagnostic], 2));
        let lines: Vec<_> = loaded.set.policies().iter().map(|policy| (policy.line, policy.column)).collect();
        assert_eq!(lines, [(5, 3), (9, 3)]);
        assert_eq!(places(&load(&[&format!("{list}{}- a: 1\n", item("a"))]).errors), ["9:3  unknown-kind"]);
        assert_eq!(places(&load(&[&format!("{list}{}", item("A"))]).errors), ["7:20 metadata.name invalid-name"]);
        assert_eq!(
            places(&load(&[&format!("{list}- {{apiVersion: v1, kind: List, items: []}}\n")]).errors),
            ["5:3  unknown-kind"]
        );
    }
    assert_eq!(places(&load(&["apiVersion: v1\nkind: List\n"]).errors), ["1:1 items missing-field"]);
    assert_eq!(places(&load(&["apiVersion: v1\nkind: List\nitems:\n"]).errors).len(), 1);
    assert_eq!(load(&["apiVersion: v1\nkind: List\nitems: []\n"]).errors, []);
}

#[test]
fn what_could_be_a_policy_is_never_skipped() {
    let table = [
        ("security.istio.io/v1", "authorizationpolicy", "unknown-kind"),
        ("security.istio.io/v1alpha1", "AuthorizationPolicy", "unknown-kind"),
        ("networking.istio.io/v1", "AuthorizationPolicyList", "unknown-kind"),
        ("security.istio.io/v1", "RequestAuthentication", "unsupported-kind"),
        ("security.istio.io/v1", "DestinationRule", "unknown-kind"),
        ("networking.istio.io/v2", "DestinationRule", "unknown-kind"),
        ("networking.istio.io/v1", "DestinationRules", "unknown-kind"),
        ("networking.istio.io/v1", "destinationRuleList", "unknown-kind"),
        ("networking.istio.io/v1", "DestinationRulelist", "unknown-kind"),
        ("networking.istio.io/v1alpha2", "ServiceEntry", "unknown-kind"),
        ("v1", "serviceentry", "unknown-kind"),
        ("networking.istio.io", "WorkloadEntry", "unknown-kind"),
        ("networking.istio.io/v1", "workloadEntryList", "unknown-kind"),
        ("networking.istio.io/v1", "SidecarList", "unsupported-kind"),
        ("security.istio.io/v1", "authorizationpolicylist", "unknown-kind"),
        ("networking.istio.io/v1", "destinationrule", "unknown-kind"),
        ("networking.istio.io/v1", "Sidecar", "unsupported-kind"),
        ("networking.istio.io/v1alpha3", "EnvoyFilter", "unsupported-kind"),
        ("extensions.istio.io/v1alpha1", "WasmPlugin", "unsupported-kind"),
        ("security.istio.io/v1", "peerauthentication", "unknown-kind"),
        ("security.istio.io/v1", "PeerAuthentications", "unknown-kind"),
        ("security.istio.io/v1alpha1", "PeerAuthentication", "unknown-kind"),
        ("security.istio.io", "PeerAuthentication", "unknown-kind"),
        ("v1", "PeerAuthentication", "unknown-kind"),
        ("example.com/v1", "PEERAUTHENTICATION", "unknown-kind"),
        ("authentication.istio.io/v1", "PeerAuthenticationList", "unknown-kind"),
        ("security.istio.io/v2", "Other", "unknown-kind"),
        ("v1", "list", "unknown-kind"),
        ("''", "PeerAuthentication", "unknown-kind"),
        ("security.istio.io/v1", "~", "unknown-kind"),
        ("1", "PeerAuthentication", "unknown-kind"),
        // What is no name says nothing about what the document is.
        ("v1", "1", "unknown-kind"),
        ("v1", "~", "unknown-kind"),
        ("install.istio.io/v1alpha2", "IstioOperator", "unsupported-version"),
        ("install.istio.io/v1alpha1", "istioOperator", "unsupported-version"),
        ("v1", "''", "unknown-kind"),
        ("1", "Service", "unknown-kind"),
        ("''", "Service", "unknown-kind"),
    ];
    for (version, name, reason) in table {
        let loaded = load(&[&kind(version, name)]);
        assert_eq!(places(&loaded.errors), [format!("1:1  {reason}")], "{version} {name}");
        assert!(loaded.set.policies().is_empty() && loaded.warnings.is_empty(), "{version} {name}");
    }
    for text in ["- 1\n", "text\n", "~\n", "a: 1\n"] {
        assert_eq!(reasons(&[text]), ["unknown-kind"], "{text}");
    }
    for (version, name) in [("v1", "Service"), ("install.istio.io/v1alpha1", "Other"), ("apps/v1", "Deployment")] {
        let loaded = load(&[&kind(version, name)]);
        assert_eq!(
            (loaded.errors.len(), places(&loaded.warnings)),
            (0, vec!["1:1  ignored-kind".to_owned()]),
            "{name}"
        );
    }
}

#[test]
fn what_is_refused_by_the_reader_is_not_reported_twice() {
    assert_eq!(reasons(&["*x\n"]), ["yaml-syntax"]);
    assert_eq!(reasons(&[&format!("{GOOD}spec: *x\n")]), ["yaml-syntax"]);
    assert_eq!(reasons(&[&format!("{GOOD}spec: {{mtls: {{mode: *x}}}}\n")]), ["yaml-syntax"]);
}

#[test]
fn empty_files_hold_nothing() {
    let loaded = load(&["", "# nothing\n", "---\n---\n"]);
    assert_eq!((loaded.documents, loaded.errors.len(), loaded.warnings.len()), (0, 0, 0));
}

#[test]
fn a_duplicate_names_both_places() {
    let loaded = load(&[GOOD, "# c\n---\n# d\n", &format!("---\n{GOOD}")]);
    assert_eq!(places(&loaded.errors), ["2:1  duplicate-resource"]);
    assert_eq!(loaded.errors[0].file, "2.yaml");
    assert!(loaded.errors[0].message.contains("shop/a is at 0.yaml:1 already"), "{}", loaded.errors[0].message);
    // In one file too, and when one of them has other faults: both come out in one run.
    assert_eq!(reasons(&[&format!("{GOOD}---\n{GOOD}")]), ["duplicate-resource"]);
    assert_eq!(reasons(&[&format!("{GOOD}spec: 1\n"), GOOD]), ["wrong-type", "duplicate-resource"]);
    let elsewhere = GOOD.replace("shop", "billing");
    assert_eq!(reasons(&[GOOD, &elsewhere]), [] as [&str; 0]);
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
        ("00", "port-not-integer"),
        ("8e1", "port-not-integer"),
        ("80.0", "port-not-integer"),
        ("8_0", "port-not-integer"),
        ("' 80'", "port-not-integer"),
        ("''", "port-not-integer"),
        ("'-'", "port-not-integer"),
        ("~", "port-not-integer"),
        ("'٨٠'", "port-not-integer"),
        ("'0'", "port-out-of-range"),
        ("-1", "port-out-of-range"),
        ("65536", "port-out-of-range"),
        ("99999999999999999999", "port-out-of-range"),
    ] {
        assert_eq!(reasons(&[&with(port)]), [reason], "{port}");
    }
    for port in ["1", "'80'", "\"8080\"", "65535"] {
        assert_eq!(reasons(&[&with(port)]), [] as [&str; 0], "{port}");
    }
    assert_eq!(reasons(&[&with("8080: {mode: STRICT}, '8080'")]), ["duplicate-key"]);
}

#[test]
fn nothing_is_not_an_object() {
    let spec = |spec: &str| reasons(&[&format!("{GOOD}spec: {spec}\n")]);
    assert_eq!(spec(""), [] as [&str; 0]);
    assert_eq!(spec("{}"), [] as [&str; 0]);
    assert_eq!(spec("{mtls: {}}"), [] as [&str; 0]);
    assert_eq!(spec("{selector: {matchLabels: {}}}"), [] as [&str; 0]);
    // 63 characters are the most that a label has.
    let labelled = |length: usize| spec(&format!("{{selector: {{matchLabels: {{app: {}}}}}}}", "x".repeat(length)));
    assert_eq!(labelled(63), [] as [&str; 0]);
    assert_eq!(labelled(64), ["selector-value-too-long"]);
    for text in [
        "{mtls: }",
        "{mtls: null}",
        "{selector: ~}",
        "{selector: {matchLabels: }}",
        "{mtls: {mode: }}",
        "{mtls: {mode: ~}}",
        "{mtls: {mode: 1}}",
        "{mtls: []}",
        "{selector: {matchLabels: {a: }}}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: ~}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: }}",
        "{selector: {matchLabels: {a: b}}, portLevelMtls: {80: STRICT}}",
        "[]",
        "STRICT",
    ] {
        assert_eq!(spec(text), ["wrong-type"], "{text}");
    }
    assert_eq!(spec("{selector: {matchLabels: {a: b}}, portLevelMtls: {}}"), ["port-map-empty"]);
    assert_eq!(spec("{portLevelMtls: {}}"), ["ports-need-selector", "port-map-empty"]);
    // A selector that has faults is a selector all the same.
    assert_eq!(spec("{selector: {matchLabels: {a: 'x*'}}, portLevelMtls: {80: {}}}"), ["selector-wildcard"]);
}

#[test]
fn a_resource_needs_a_name_and_a_namespace() {
    let with = |metadata: &str| {
        let text = format!("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{metadata}\n");
        reasons(&[&text])
    };
    assert_eq!(with(""), ["missing-name", "missing-namespace"]);
    assert_eq!(with("metadata: {}"), ["missing-name", "missing-namespace"]);
    assert_eq!(with("metadata: {name: a}"), ["missing-namespace"]);
    assert_eq!(with("metadata: {namespace: a, generateName: b-}"), ["missing-name"]);
    assert_eq!(with("metadata: {name: a, namespace: Shop}"), ["invalid-name"]);
    assert_eq!(with("metadata: {name: a, namespace: a.b}"), ["invalid-name"]);
    assert_eq!(with("metadata: {name: '', namespace: ''}"), ["invalid-name", "invalid-name"]);
    assert_eq!(with("metadata: {name: 1, namespace: shop}"), ["wrong-type"]);
    assert_eq!(with("metadata: {name: a, namespace: shop, nmae: x}"), ["unknown-field"]);
    assert_eq!(with("metadata: {name: a.b, namespace: shop, creationTimestamp: null}"), [] as [&str; 0]);
}

#[test]
fn ages_are_exact() {
    let at = |time: &str| {
        let loaded = load(&[&GOOD.replace("namespace: shop", &format!("namespace: shop, creationTimestamp: {time}"))]);
        assert_eq!(loaded.errors, [], "{time}");
        loaded.set.policies()[0].clone()
    };
    let order =
        ["~", "1969-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z", "'2026-01-01T00:00:01Z'"];
    for pair in order.windows(2) {
        let [(one, other)] = [(at(pair[0]), at(pair[1]))];
        assert!(one.precedes(&other) && !other.precedes(&one), "{pair:?}");
    }
    // One moment in two zones.
    let (one, other) = (at("2026-01-01T01:00:00+01:00"), at("2026-01-01T00:00:00Z"));
    assert!(!one.precedes(&other) && !other.precedes(&one));
}

#[test]
fn messages_stay_on_one_line() {
    let evil = "\"a\\n\\e[2J\\u202e\"";
    let texts = [
        format!("apiVersion: {evil}\nkind: {evil}\n"),
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {evil}, namespace: {evil}, creationTimestamp: {evil}}}\n"
        ),
        format!(
            "{GOOD}spec: {{selector: {{matchLabels: {{{evil}: '*'}}}}, mtls: {{mode: {evil}}}, portLevelMtls: {{{evil}: {{}}}}, {evil}: 1}}\n"
        ),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut loaded = load(&texts);
    assert!(loaded.errors.len() + loaded.warnings.len() >= 8);
    for found in loaded.errors.iter_mut().chain(&mut loaded.warnings) {
        found.file.push_str("\n\u{1b}[2J");
        let shown = found.to_string();
        assert!(!shown.chars().any(|c| c.is_control() || c == '\u{202e}'), "{shown:?}");
    }
}

mod conflicts {
    use std::collections::BTreeMap;

    use portcullis_policy::MeshSettings;

    use super::*;

    fn policy(name: &str, created: &str, selector: &str) -> String {
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: shop, \
             creationTimestamp: {created}}}\nspec: {{selector: {{matchLabels: {selector}}}, mtls: {{mode: STRICT}}}}\n"
        )
    }

    #[test]
    fn a_second_policy_of_a_scope_is_warned_about_with_the_winner() {
        let (young, old) =
            (policy("a", "2026-01-02T00:00:00Z", "{app: x}"), policy("b", "2026-01-01T00:00:00Z", "{app: x}"));
        let loaded = load(&[&young, &old]);
        assert_eq!(loaded.errors, []);
        let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
        assert_eq!((warning.reason, warning.file.as_str(), warning.line), ("policy-conflict", "0.yaml", 1));
        assert!(warning.message.contains("shop/a has no effect beside shop/b (1.yaml:1), which is older"), "{warning}");

        let loaded = load(&[GOOD, &GOOD.replace("name: a", "name: b")]);
        let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
        assert!(
            warning.message.contains("shop/b has no effect beside shop/a (0.yaml:1), which comes first by name"),
            "{warning}"
        );
    }

    #[test]
    fn selectors_that_differ_conflict_only_where_both_match() {
        let loaded = load(&[&policy("a", "~", "{app: x}"), &policy("b", "~", "{tier: y}")]);
        assert_eq!(loaded.warnings, []);
        let warnings = |labels: &[(&str, &str)]| {
            let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            places(&loaded.set.warnings_for(&MeshSettings::default(), "shop", &labels))
        };
        assert_eq!(warnings(&[("app", "x"), ("tier", "y")]), ["1:1  policy-conflict"]);
        assert_eq!(warnings(&[("app", "x")]), [] as [&str; 0]);
        let mesh = MeshSettings { root_namespace: "shop".to_owned(), ..MeshSettings::default() };
        let in_root = loaded.set.warnings_for(&mesh, "billing", &BTreeMap::new());
        assert_eq!(places(&in_root), ["1:1 spec.selector root-selector", "1:1 spec.selector root-selector"]);
    }
}

#[test]
fn a_label_key_that_is_no_text_for_everybody_is_refused() {
    let with = |key: &str| format!("{GOOD}spec: {{selector: {{matchLabels: {{{key}: cart}}}}}}\n");
    for wrong in ["on", "0x10", "~"] {
        assert_eq!(reasons(&[&with(wrong)]), ["wrong-type"], "{wrong}");
    }
    assert_eq!(reasons(&[&with("'on'")]), Vec::<&str>::new());
}
