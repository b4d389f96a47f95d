//! What `replay` says about traffic.

use portcullis_api::{Timestamp, Transport};
use portcullis_policy::{Evaluation, MeshSettings, PolicySet, Source};
use portcullis_report::replay::{Change, Options, Replay};
use portcullis_report::{Answer, Names, Status, Window};

use crate::model::*;

pub(crate) const PERMISSIVE: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
";
pub(crate) const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
";
const ONLY_WEB: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]
";
const ONLY_NETWORK: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: network, namespace: shop}
spec:
  rules:
  - from: [{source: {ipBlocks: [10.0.0.0/24]}}]
";

pub(crate) fn set(documents: &[&str]) -> PolicySet {
    let text = documents.join("\n---\n").into_bytes();
    let loaded = PolicySet::load(&[Source { file: "new.yaml".to_owned(), text }]);
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    loaded.set
}

pub(crate) fn replay(answers: &[Answer], in_force: Option<&PolicySet>, new: &PolicySet) -> Replay {
    let options = Options {
        in_force,
        new,
        mesh: &MeshSettings::default(),
        evaluation: Evaluation::Enforced,
        window: Window { seconds: WEEK },
        min_observation: 86_400,
        namespace: None,
        now: Timestamp::from_unix(NOW),
    };
    Replay::new(answers, &Names::default(), &options)
}

fn of(connections: &[Connection], in_force: &[&str], new: &[&str]) -> Replay {
    replay(&[answer(sidecar(ledger(connections)))], Some(&set(in_force)), &set(new))
}

#[test]
fn plaintext_loses_under_strict_and_the_policy_is_named() {
    let report = of(&[plaintext("10.0.0.5", 7200), mtls("web", 60)], &[PERMISSIVE], &[STRICT]);
    let [row] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((row.change, row.peer.as_str(), row.port, row.connections), (Change::Loses, "10.0.0.5", 8080, 1));
    assert_eq!((row.reason, report.status), ("mtls_required", Status::NotReady));
    let by = &row.decided_by[0];
    assert_eq!((by.kind, by.file.as_deref(), by.line), ("PeerAuthentication", Some("new.yaml"), Some(2)));
    assert_eq!(of(&[mtls("web", 60)], &[PERMISSIVE], &[STRICT]).status, Status::Ready);
}

#[test]
fn rules_name_who_loses_and_who_gains() {
    let refused = Connection { refused: Some("authorization_not_allowed"), ..mtls("api", 60) };
    let report = of(&[refused.clone(), mtls("web", 60)], &[PERMISSIVE, ONLY_WEB], &[PERMISSIVE]);
    let [row] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((row.change, row.peer.as_str(), report.status), (Change::Gains, "api.shop", Status::Ready));
    assert_eq!(row.decided_by[0].name.as_deref(), Some("web"));
    let report = of(&[mtls("api", 60), mtls("web", 60)], &[PERMISSIVE], &[PERMISSIVE, ONLY_WEB]);
    let [row] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((row.change, row.peer.as_str(), row.reason), (Change::Loses, "api.shop", "authorization_not_allowed"));
    let broken = Connection { refused: Some("unknown_ca"), ..plaintext("10.0.0.5", 60) };
    let broken = Connection { transport: Transport::Tls, ..broken };
    assert!(of(&[broken], &[STRICT], &[PERMISSIVE]).items.is_empty(), "it was not refused by a policy");
}

#[test]
fn what_was_not_recorded_is_said() {
    let twice = [mtls("web", 7200), mtls("web", 60)];
    let report = of(&twice, &[PERMISSIVE], &[PERMISSIVE, ONLY_NETWORK]);
    let [row] = &report.items[..] else { panic!("{:?}", report.items) };
    assert_eq!((row.change, report.status), (Change::NotDecided, Status::TooLittle));
    let note = row.note.as_deref().unwrap();
    assert!(
        note.ends_with("source.ip, which is recorded for the last connection only: with 10.0.0.9 it is allowed"),
        "{note}"
    );
    assert!(
        of(&twice[..1], &[PERMISSIVE], &[PERMISSIVE, ONLY_NETWORK]).items.is_empty(),
        "of one connection all is recorded"
    );
    let plain: Vec<_> = (0..9).map(|n| plaintext("10.0.9.5", n)).collect();
    let lost = of(&plain, &[PERMISSIVE], &[PERMISSIVE, ONLY_NETWORK]);
    assert_eq!(lost.items[0].change, Change::Loses, "a client without an identity is its address");
}

#[test]
fn under_disable_nobody_knows_what_a_client_speaks() {
    let blind = Connection { transport: Transport::Unknown, ..plaintext("10.0.0.5", 60) };
    let disable = STRICT.replace("STRICT", "DISABLE");
    let report = of(std::slice::from_ref(&blind), &[&disable], &[STRICT]);
    assert_eq!((report.items[0].change, report.status), (Change::NotDecided, Status::TooLittle));
    assert!(of(&[blind], &[&disable], &[&disable]).items.is_empty());
}

#[test]
fn without_the_policies_in_force_only_losses_are_told() {
    let refused = Connection { refused: Some("plaintext_in_strict"), ..plaintext("10.0.0.6", 60) };
    let answers = [answer(sidecar(ledger(&[plaintext("10.0.0.5", 60), refused])))];
    let report = replay(&answers, None, &set(&[STRICT]));
    assert_eq!(report.items.iter().map(|row| row.peer.as_str()).collect::<Vec<_>>(), ["10.0.0.5"]);
    assert!(!report.knows_policies_in_force);
    assert!(replay(&answers, None, &set(&[PERMISSIVE])).items.is_empty());
}

#[test]
fn each_sidecar_is_decided_with_its_own_labels_and_mesh() {
    let selected = STRICT.replace("spec: {", "spec: {selector: {matchLabels: {version: v2}}, ");
    let with_version = |version: &str, address: &str| {
        let mut observations = sidecar(ledger(&[plaintext(address, 60)]));
        observations.proxy.labels.insert("version".to_owned(), version.to_owned());
        answer(observations)
    };
    let answers = [with_version("v1", "10.0.0.5"), with_version("v2", "10.0.0.6")];
    let report = replay(&answers, Some(&set(&[PERMISSIVE])), &set(&[&selected]));
    assert_eq!(report.items.iter().map(|row| row.peer.as_str()).collect::<Vec<_>>(), ["10.0.0.6"]);
    let mut renamed = sidecar(ledger(&[mtls("web", 60)]));
    renamed.proxy.trust_domain = "new.domain".to_owned();
    assert_eq!(replay(&[answer(renamed.clone())], None, &set(&[STRICT, ONLY_WEB])).status, Status::NotReady);
    renamed.proxy.trust_domain_aliases = vec!["cluster.local".to_owned()];
    assert_eq!(replay(&[answer(renamed)], None, &set(&[STRICT, ONLY_WEB])).status, Status::Ready);
}

#[test]
fn policies_that_the_sidecars_do_not_have_are_told() {
    let answers = [answer(sidecar(ledger(&[mtls("web", 60)])))];
    let report = replay(&answers, Some(&set(&[STRICT])), &set(&[STRICT]));
    let told: Vec<_> = report.drift.iter().map(|it| (it.port, it.observed, it.by_policies)).collect();
    assert_eq!(told, [None, Some(8080), Some(9090)].map(|port| (port, "PERMISSIVE", "STRICT")));
    assert!(replay(&answers, Some(&set(&[PERMISSIVE])), &set(&[STRICT])).drift.is_empty());
}

#[test]
fn too_little_and_unreachable_are_told() {
    let mut young = sidecar(ledger(&[mtls("web", 60)]));
    young.observed_seconds = 60;
    let new = set(&[STRICT]);
    assert_eq!(replay(&[answer(young)], None, &new).status, Status::TooLittle);
    assert_eq!(replay(&[answer(sidecar(Vec::new()))], None, &new).status, Status::TooLittle);
    let fine = answer(sidecar(ledger(&[mtls("web", 60)])));
    assert_eq!(replay(&[fine, silent()], None, &new).status, Status::Unreachable);
    let lost = answer(sidecar(ledger(&[plaintext("10.0.0.5", 60)])));
    assert_eq!(replay(&[lost, silent()], None, &new).status, Status::NotReady);
}
