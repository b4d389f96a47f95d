//! Exceptions from mTLS, and drift from a baseline: cases, and laws for any policies.

use portcullis_api::{DecidingPolicy, Mode, PortMode, Timestamp};
use portcullis_policy::{MeshSettings, PolicySet, Source};
use portcullis_report::audit::{Audit, AuditInput, AuditStatus, Baseline, DriftKind, Problem};
use portcullis_report::{Answer, Form};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::model::{DAY, NOW, answer, ledger, mtls, plaintext, sidecar};

fn read(text: &str) -> PolicySet {
    let source = Source { file: "all.yaml".to_owned(), text: text.as_bytes().to_vec() };
    let loaded = PolicySet::load(&[source]);
    assert!(loaded.errors.is_empty(), "{:?}\n{text}", loaded.errors);
    loaded.set
}

fn audit(text: &str, answers: Option<&[Answer]>, baseline: Option<&Baseline>) -> Audit {
    Audit::new(&AuditInput {
        set: &read(text),
        mesh: &MeshSettings::default(),
        mesh_source: "cart.yaml",
        answers,
        namespace: None,
        baseline,
        now: Timestamp::from_unix(NOW),
    })
}

fn rows(audit: &Audit) -> Vec<String> {
    audit.items.iter().map(|item| format!("{}/{} {} {}", item.namespace, item.name, item.scope, item.mode)).collect()
}

const STRICT_MESH: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}\n";

fn peer(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: shop{metadata}}}, spec: {{{spec}}}}}\n"
    )
}

#[test]
fn what_is_strict_is_no_exception_and_a_mesh_without_a_mode_is_one() {
    let clean = audit(STRICT_MESH, None, None);
    assert_eq!((clean.status, clean.items.len()), (AuditStatus::Clean, 0));
    let open = audit(&peer("a", "", "mtls: {mode: STRICT}"), None, None);
    assert_eq!(rows(&open), ["istio-system/mesh.defaultMode mesh UNSET (PERMISSIVE)"]);
    assert_eq!(open.items[0].file, "cart.yaml");
    let unset = STRICT_MESH.replace("mtls: {mode: STRICT}", "");
    assert_eq!(rows(&audit(&unset, None, None)), ["istio-system/default mesh UNSET (PERMISSIVE)"]);
    // The older one decides.
    let older = format!(
        "{unset}---\n{}",
        STRICT_MESH.replace("name: default", "name: other, creationTimestamp: 2020-01-01T00:00:00Z")
    );
    assert_eq!(rows(&audit(&older, None, None)).len(), 1);
}

#[test]
fn each_kind_of_exception_is_listed_once_with_its_scope() {
    let text = [
        STRICT_MESH.to_owned(),
        peer("namespace", "", "mtls: {mode: PERMISSIVE}"),
        peer("workload", "", "selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}, portLevelMtls: {1: {mode: STRICT}, 2: {mode: DISABLE}}"),
        peer("planned", ", annotations: {istio.io/dry-run: 'true'}", "mtls: {mode: STRICT}"),
        peer("glass", ", annotations: {portcullis/expires: '2999-01-01'}", "selector: {matchLabels: {app: b}}, mtls: {mode: STRICT}"),
        "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: dry, namespace: shop, annotations: {istio.io/dry-run: 'true'}}, spec: {}}\n".to_owned(),
        "---\n{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: wet, namespace: shop}, spec: {}}\n".to_owned(),
        "---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: rule, namespace: shop}, spec: {host: a.shop.svc.cluster.local, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, portLevelSettings: [{port: {number: 80}, tls: {mode: DISABLE}}]}, subsets: [{name: v1, labels: {v: v1}, trafficPolicy: {tls: {mode: DISABLE}}}]}}\n".to_owned(),
        "---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: inside, namespace: shop}, spec: {hosts: [b.shop.svc.cluster.local], location: MESH_INTERNAL, resolution: STATIC, ports: [{number: 80, name: tcp}], endpoints: [{address: 10.0.0.1}]}}\n".to_owned(),
        "---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: outside, namespace: shop}, spec: {hosts: [example.org], resolution: DNS, ports: [{number: 443, name: tls}]}}\n".to_owned(),
    ]
    .concat();
    let audit = audit(&text, None, None);
    assert_eq!(
        rows(&audit),
        [
            "shop/dry namespace DRY-RUN",
            "shop/rule a.shop.svc.cluster.local subset v1 DISABLE",
            "shop/rule a.shop.svc.cluster.local:80 DISABLE",
            "shop/glass workload STRICT",
            "shop/namespace namespace PERMISSIVE",
            "shop/planned namespace DRY-RUN",
            "shop/workload port 2 DISABLE",
            "shop/workload workload DISABLE",
            "shop/inside b.shop.svc.cluster.local NO-SIDECAR",
        ]
    );
}

#[test]
fn an_exception_is_used_by_what_it_let_through_without_mtls() {
    let text = format!(
        "{STRICT_MESH}{}",
        peer(
            "cart",
            "",
            "selector: {matchLabels: {app: cart}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {9000: {mode: DISABLE}}"
        )
    );
    let by = |scope: &str| DecidingPolicy {
        scope: scope.to_owned(),
        namespace: Some("shop".to_owned()),
        name: Some("cart".to_owned()),
        ..DecidingPolicy::default()
    };
    let at = |port, scope: &str, mode| PortMode { port: Some(port), mode, decided_by: by(scope), server_first: false };
    let refused = crate::model::Connection { refused: Some("x"), ..plaintext("10.0.0.8", 10) };
    let mut seen = sidecar(ledger(&[plaintext("10.0.0.5", 60), plaintext("10.0.0.6", 90), mtls("web", 5), refused]));
    seen.ports = vec![at(8080, "workload", Mode::Permissive), at(9000, "port", Mode::Disable)];
    let answers = vec![answer(seen), Answer { label: "10.0.0.9".to_owned(), observations: Err("no".to_owned()) }];
    let audit = audit(&text, Some(&answers), None);
    let used: Vec<_> = audit.items.iter().map(|item| (item.scope.as_str(), item.used.unwrap())).collect();
    assert_eq!((used[0].0, used[0].1.connections, used[0].1.last_seen), ("port 9000", 0, None));
    assert_eq!((used[1].0, used[1].1.connections, used[1].1.clients), ("workload", 2, 2));
    assert_eq!(used[1].1.last_seen, Some(Timestamp::from_unix(NOW - 60)));
    assert!(audit.render(Form::Table).unwrap().contains("USED is not complete: no answer from 10.0.0.9"));
    // A sidecar that does not have the policy cannot tell.
    let elsewhere = [answer(sidecar(ledger(&[plaintext("10.0.0.5", 60)])))];
    let unknown = self::audit(&text, Some(&elsewhere), None);
    assert!(unknown.items.iter().all(|item| item.used.is_none()), "{:?}", unknown.items);
}

#[test]
fn hostile_annotations_and_baselines_mean_nothing_to_any_format() {
    let hostile = "=1+1 <b>|`x`]]>\\u001b[2J\\r\\n\\u202e @all";
    let metadata = format!(", annotations: {{owner: \"{hostile}\", reason: \"{hostile}\", expires: \"{hostile}\"}}");
    let text = format!("{STRICT_MESH}{}", peer("a", &metadata, "mtls: {mode: PERMISSIVE}"));
    let saved = Baseline::new(&audit(&text, None, None).items).to_json().unwrap();
    let saved = saved.replace("\"shop\"", "\"sh\\u001bop\"").replace("\"PERMISSIVE\"", "\"\\u202e\"");
    let baseline = Baseline::parse(&saved).unwrap();
    let audit = audit(&text, None, Some(&baseline));
    assert_eq!(audit.status, AuditStatus::Drift);
    for form in Form::ALL {
        let text = audit.render(form).unwrap();
        let hidden = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(hidden), "{form:?}: {text:?}");
    }
    assert!(!audit.render(Form::Csv).unwrap().contains("\"=1"), "a spreadsheet would calculate it");
}

/// Any policies of some namespaces.
fn policies() -> impl Strategy<Value = Vec<String>> {
    let mode = || select(vec!["STRICT", "PERMISSIVE", "DISABLE", "UNSET"]);
    let annotation = || option::of(select(vec!["a", "b", "2999-01-01", "2020-01-01", "never"]));
    let one = (mode(), btree_map(1_u16..4, mode(), 1..3), [annotation(), annotation(), annotation()], any::<bool>());
    vec(one, 0..6).prop_map(|all| {
        let all = all.into_iter().enumerate().map(|(index, (mode, ports, [owner, reason, expires], dry))| {
            let dry = dry.then_some("true");
            let named =
                [("owner", owner), ("portcullis/reason", reason), ("expires", expires), ("istio.io/dry-run", dry)];
            let annotations = named.iter().filter_map(|(name, value)| Some(format!("{name}: '{}'", (*value)?)));
            let annotations: Vec<String> = annotations.collect();
            let ports: Vec<String> = ports.iter().map(|(port, mode)| format!("{port}: {{mode: {mode}}}")).collect();
            let spec = format!(
                "selector: {{matchLabels: {{app: a{index}}}}}, mtls: {{mode: {mode}}}, portLevelMtls: {{{}}}",
                ports.join(", ")
            );
            peer(&format!("p{index}"), &format!(", annotations: {{{}}}", annotations.join(", ")), &spec)
        });
        all.collect()
    })
}

proptest! {
    #[test]
    fn a_baseline_has_no_drift_from_what_it_was_saved_of(policies in policies(), seed in any::<usize>()) {
        let text = format!("{STRICT_MESH}{}", policies.concat());
        let saved = Baseline::new(&audit(&text, None, None).items).to_json().unwrap();
        let baseline = Baseline::parse(&saved).unwrap();
        let mut other = policies.clone();
        if !other.is_empty() {
            let middle = seed % other.len();
            other.rotate_left(middle);
        }
        // In another order, and with other lines in front.
        let moved = audit(&format!("# comment\n\n{STRICT_MESH}{}", other.concat()), None, Some(&baseline));
        prop_assert_eq!(moved.drift.as_deref(), Some(&[][..]));
        prop_assert_eq!(Baseline::new(&moved.items).to_json().unwrap(), saved);
    }

    #[test]
    fn what_is_added_one_way_is_removed_the_other_way(before in policies(), after in policies()) {
        let [before, after] = [before, after].map(|policies| format!("{STRICT_MESH}{}", policies.concat()));
        let [old, new] = [&before, &after].map(|text| Baseline::new(&audit(text, None, None).items));
        let forth = audit(&after, None, Some(&old)).drift.unwrap();
        let back = audit(&before, None, Some(&new)).drift.unwrap();
        let of = |drift: &[portcullis_report::audit::Drift], kind: DriftKind| {
            drift.iter().filter(|one| one.kind == kind).map(|one| (one.name.clone(), one.scope.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(of(&forth, DriftKind::Added), of(&back, DriftKind::Removed));
        prop_assert_eq!(of(&forth, DriftKind::Removed), of(&back, DriftKind::Added));
        prop_assert_eq!(of(&forth, DriftKind::Changed), of(&back, DriftKind::Changed));
        prop_assert_eq!(forth.is_empty(), old == new || old.to_json().unwrap() == new.to_json().unwrap());
    }

    #[test]
    fn an_exception_is_clean_only_if_it_says_who_why_and_until_when(policies in policies()) {
        let audit = audit(&format!("{STRICT_MESH}{}", policies.concat()), None, None);
        for item in &audit.items {
            let is_over = item.expires_at.is_some_and(|at| at.unix() <= NOW);
            let is_complete = item.owner.is_some() && item.reason.is_some() && item.expires_at.is_some() && !is_over;
            prop_assert_eq!(item.problems.is_empty(), is_complete, "{:?}", item);
            prop_assert_eq!(item.problems.contains(&Problem::Expired), is_over);
        }
        let is_clean = audit.items.iter().all(|item| item.problems.is_empty());
        prop_assert_eq!(audit.status, if is_clean { AuditStatus::Clean } else { AuditStatus::Findings });
        prop_assert!(NOW > DAY);
    }
}
