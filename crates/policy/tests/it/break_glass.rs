//! Break-glass documents: what they open, when, and what makes them invalid.

use std::collections::BTreeMap;

use portcullis_policy::{EffectivePolicy, Evaluation, MeshSettings, Mode, PolicySet, Scope, Source, explain};

/// 2026-11-30T10:00:00Z.
const UNTIL: i64 = 1_796_032_800;
const PORTS: [u16; 3] = [8080, 9090, 7];

fn document(namespace: &str, name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: {name}\n  namespace: {namespace}\n{annotations}spec: {spec}\n"
    )
}

fn break_glass(spec: &str) -> String {
    let annotations =
        "  annotations:\n    portcullis/until: \"2026-11-30T10:00:00Z\"\n    portcullis/reason: the import fails\n";
    document("shop", "break-glass", annotations, spec)
}

fn load(text: &str) -> PolicySet {
    let loaded = PolicySet::load(&[Source { file: "p.yaml".to_owned(), text: text.as_bytes().to_vec() }]);
    assert!(loaded.errors.is_empty(), "{:?}\n{text}", loaded.errors);
    loaded.set
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "cart".to_owned())])
}

fn effective(set: &PolicySet) -> EffectivePolicy {
    EffectivePolicy::evaluate(set, &MeshSettings::default(), "shop", &labels(), Evaluation::Enforced)
}

const CART: &str = "selector: {matchLabels: {app: cart}}";

/// Every mesh with a policy of each mode, or none, in each scope.
fn worlds() -> Vec<String> {
    let modes = [None, Some("STRICT"), Some("PERMISSIVE"), Some("DISABLE")];
    let mut worlds = Vec::new();
    for mesh in modes {
        for namespace in modes {
            for workload in modes {
                for port in modes {
                    let mtls = |mode: &str| format!("{{mtls: {{mode: {mode}}}}}");
                    let mut texts = Vec::new();
                    texts.extend(mesh.map(|mode| document("istio-system", "default", "", &mtls(mode))));
                    texts.extend(namespace.map(|mode| document("shop", "default", "", &mtls(mode))));
                    let own = workload.map_or_else(String::new, |mode| format!(", mtls: {{mode: {mode}}}"));
                    let ports =
                        port.map_or_else(String::new, |mode| format!(", portLevelMtls: {{9090: {{mode: {mode}}}}}"));
                    if !(own.is_empty() && ports.is_empty()) {
                        texts.push(document("shop", "cart", "", &format!("{{{CART}{own}{ports}}}")));
                    }
                    worlds.push(texts.join("---\n"));
                }
            }
        }
    }
    worlds
}

#[test]
fn it_opens_what_is_strict_by_its_scope_or_a_wider_one_until_its_time_and_nothing_else() {
    let targets = [
        ("{mtls: {mode: PERMISSIVE}}".to_owned(), Scope::Namespace, None),
        (format!("{{{CART}, mtls: {{mode: PERMISSIVE}}}}"), Scope::Workload, None),
        (format!("{{{CART}, portLevelMtls: {{9090: {{mode: PERMISSIVE}}}}}}"), Scope::Port, Some(9090)),
    ];
    let mut opened = 0;
    for world in worlds() {
        let without = if world.is_empty() { PolicySet::default() } else { load(&world) };
        let plain = effective(&without);
        for (spec, reach, only) in &targets {
            let set = load(&format!("{world}---\n{}", break_glass(spec)));
            assert_eq!(effective(&set), plain, "without a time none is in force: {world}");
            assert_eq!(effective(&set.clone().at(UNTIL)), plain, "it has ended: {world}");
            let open = effective(&set.clone().at(UNTIL - 1));
            for port in PORTS {
                let (was, is) = (plain.mode(port), open.mode(port));
                let covers = only.is_none_or(|only| only == port);
                if covers && was.mode == Mode::Strict && was.by.scope <= *reach {
                    opened += 1;
                    assert_eq!(
                        (is.mode, is.by.scope),
                        (Mode::Permissive, Scope::BreakGlass),
                        "{port} {spec} in {world}"
                    );
                    assert_eq!(&*is.label, "shop/break-glass");
                    let explained =
                        explain(&set.clone().at(UNTIL - 61), &MeshSettings::default(), "shop", &labels(), port);
                    let text = explained.to_string();
                    assert!(text.contains("decided by break-glass shop/break-glass (p.yaml:"), "{text}");
                    assert!(text.contains("until 2026-11-30T10:00:00Z, 2 min left: the import fails"), "{text}");
                } else {
                    assert_eq!(is, was, "{port} {spec} in {world}");
                }
            }
        }
    }
    assert!(opened > 100, "{opened}");
}

#[test]
fn another_workload_or_namespace_is_not_opened() {
    let set = load(&format!(
        "{}---\n{}",
        document("istio-system", "default", "", "{mtls: {mode: STRICT}}"),
        break_glass(&format!("{{{CART}, mtls: {{mode: PERMISSIVE}}}}"))
    ));
    let set = set.at(UNTIL - 1);
    let mode = |namespace: &str, labels: &BTreeMap<String, String>| {
        EffectivePolicy::evaluate(&set, &MeshSettings::default(), namespace, labels, Evaluation::Enforced)
            .workload()
            .mode
    };
    assert_eq!(mode("shop", &labels()), Mode::Permissive);
    assert_eq!(mode("shop", &BTreeMap::new()), Mode::Strict);
    assert_eq!(mode("bank", &labels()), Mode::Strict);
}

#[test]
fn one_that_ended_is_listed_as_ignored() {
    let set = load(&break_glass("{mtls: {mode: PERMISSIVE}}")).at(UNTIL);
    let explained = explain(&set, &MeshSettings::default(), "shop", &labels(), 8080);
    assert_eq!(explained.ignored[0].reason, "break-glass-ended");
    assert!(explained.to_string().contains("its time is over"), "{explained}");
}

#[test]
fn whatever_is_wrong_with_one_is_an_error_with_its_position() {
    let good = break_glass("{mtls: {mode: PERMISSIVE}}");
    let rows = [
        ("\"2026-11-30T10:00:00Z\"", "soon", "break-glass-until", 7),
        ("\"2026-11-30T10:00:00Z\"", "", "wrong-type", 7),
        ("\"2026-11-30T10:00:00Z\"", "1796032800", "wrong-type", 7),
        ("the import fails", "\" \"", "break-glass-no-reason", 7),
        ("    portcullis/reason: the import fails\n", "", "break-glass-no-reason", 7),
        ("mode: PERMISSIVE", "mode: STRICT", "break-glass-mode", 1),
        ("mode: PERMISSIVE", "mode: DISABLE", "break-glass-mode", 1),
        ("{mtls: {mode: PERMISSIVE}}", "{}", "break-glass-mode", 1),
        ("    portcullis/reason", "    istio.io/dry-run: \"true\"\n    portcullis/reason", "break-glass-dry-run", 1),
    ];
    for (from, to, reason, line) in rows {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        let loaded = PolicySet::load_at(&[Source { file: "p.yaml".to_owned(), text: text.into_bytes() }], UNTIL - 60);
        let found = loaded.errors.first().unwrap_or_else(|| panic!("{from} -> {to} is accepted"));
        assert_eq!((found.reason, found.line), (reason, line), "{from} -> {to}: {:?}", loaded.errors);
        assert!(loaded.set.break_glass().is_empty() && loaded.set.policies().is_empty(), "{from} -> {to}");
    }
}

#[test]
fn an_end_more_than_a_day_ahead_is_an_error() {
    let sources = [Source { file: "p.yaml".to_owned(), text: break_glass("{mtls: {mode: PERMISSIVE}}").into_bytes() }];
    assert!(PolicySet::load_at(&sources, UNTIL - 86_400).errors.is_empty());
    let found = PolicySet::load_at(&sources, UNTIL - 86_401).errors;
    assert_eq!((found[0].reason, found[0].line, found[0].column), ("break-glass-too-long", 7, 23), "{found:?}");
    // Its time being over is no error: the file may stay.
    assert!(PolicySet::load_at(&sources, UNTIL + 86_401).errors.is_empty());
}

#[test]
fn the_one_that_lasts_longest_is_named_and_what_it_does_not_cover_has_its_own_end() {
    let early = break_glass(&format!("{{{CART}, portLevelMtls: {{9090: {{mode: PERMISSIVE}}}}}}"));
    let late =
        break_glass("{mtls: {mode: PERMISSIVE}}").replace("name: break-glass", "name: later").replace("T10:", "T11:");
    let strict = document("shop", "cart", "", &format!("{{{CART}, portLevelMtls: {{9090: {{mode: STRICT}}}}}}"));
    let mesh = document("istio-system", "default", "", "{mtls: {mode: STRICT}}");
    let set = load(&[early, late, strict, mesh].join("---\n")).at(UNTIL - 1);
    let policy = effective(&set);
    assert_eq!(&*policy.mode(8080).label, "shop/later");
    assert_eq!(&*policy.mode(9090).label, "shop/break-glass", "a policy of the port is not opened by its namespace");
    assert_eq!(effective(&set.at(UNTIL)).mode(9090).mode, Mode::Strict);
}
