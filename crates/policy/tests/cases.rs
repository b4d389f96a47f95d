//! Every row of the case file that concerns this crate.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use portcullis_policy::{EffectivePolicy, MeshSettings, Mode, PolicySet, Source};
use serde_yaml::Value;

fn data() -> Value {
    serde_yaml::from_str(include_str!("data/peerauth-cases.yaml")).unwrap()
}

/// As JSON, which is YAML with every string quoted: `serde_yaml` would write the string 'OFF' as the boolean OFF.
fn source(document: &Value) -> Source {
    Source { file: "case.yaml".to_owned(), text: serde_json::to_vec(document).unwrap() }
}

fn rows(section: &str) -> Vec<Value> {
    let rows = data()[section].as_sequence().unwrap().clone();
    assert!(!rows.is_empty(), "{section}");
    rows
}

#[test]
fn every_mode_case() {
    let rows = rows("cases");
    assert_eq!(rows.len(), 61);
    for row in rows {
        let id = row["id"].as_str().unwrap();
        let sources: Vec<Source> = row["policies"]
            .as_sequence()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(n, policy)| Source { file: format!("{n}.yaml"), ..source(policy) })
            .collect();
        let loaded = PolicySet::load(&sources);
        assert!(loaded.errors.is_empty(), "{id}: {:?}", loaded.errors);
        let mesh = MeshSettings {
            root_namespace: row["rootNamespace"].as_str().unwrap().to_owned(),
            default_mode: Mode::Permissive,
        };
        let labels: BTreeMap<String, String> = row["workload"]["labels"]
            .as_mapping()
            .map(|map| map.iter().map(|(k, v)| (k.as_str().unwrap().into(), v.as_str().unwrap().into())).collect())
            .unwrap_or_default();
        let namespace = row["workload"]["namespace"].as_str().unwrap();
        let effective = EffectivePolicy::resolve(&loaded.set, &mesh, namespace, &labels);
        for expectation in row["expectations"].as_sequence().unwrap() {
            let port = u16::try_from(expectation["port"].as_u64().unwrap()).unwrap();
            let wanted = expectation["mode"].as_str().unwrap();
            assert_eq!(effective.mode(port).mode.as_str(), wanted, "{id} port {port}");
            let told = portcullis_policy::explain(&loaded.set, &mesh, namespace, &labels, port);
            assert_eq!(told.mode.as_str(), wanted, "{id} port {port}: explain");
        }
    }
}

#[test]
fn every_invalid_case_has_its_reason() {
    for row in rows("invalid") {
        let id = row["id"].as_str().unwrap();
        let loaded = PolicySet::load(&[source(&row["document"])]);
        let reason = row["reason"].as_str().unwrap();
        assert!(loaded.errors.iter().any(|error| error.reason == reason), "{id}: {:?}", loaded.errors);
        assert!(loaded.set.policies().is_empty(), "{id}");
    }
}

#[test]
fn every_warning_case_is_valid_and_warned_about() {
    for row in rows("warnings") {
        let id = row["id"].as_str().unwrap();
        let loaded = PolicySet::load(&[source(&row["document"])]);
        assert!(loaded.errors.is_empty(), "{id}: {:?}", loaded.errors);
        let reason = row["warning"].as_str().unwrap();
        assert!(loaded.warnings.iter().any(|warning| warning.reason == reason), "{id}: {:?}", loaded.warnings);
    }
}
