//! Every row of the case file that concerns this crate.

use std::collections::BTreeMap;

use portcullis_policy::{EffectivePolicy, MeshSettings, PolicySet, Source, explain};
use serde_yaml::Value;

const CASES: &str = include_str!("../data/peerauth-cases.yaml");

/// As JSON, which is YAML with every string quoted: `serde_yaml` would write the string 'OFF' as the boolean OFF.
pub(crate) fn source(document: &Value) -> Source {
    Source { file: "case.yaml".to_owned(), text: serde_json::to_vec(document).unwrap() }
}

fn all_pass(section: &str, count: usize, check: impl Fn(&Value) -> Result<(), String>) {
    all_pass_in(CASES, section, count, check);
}

/// Fails with the id of every row that fails, not only of the first.
pub(crate) fn all_pass_in(data: &str, section: &str, count: usize, check: impl Fn(&Value) -> Result<(), String>) {
    let data: Value = serde_yaml::from_str(data).unwrap();
    let rows = data[section].as_sequence().unwrap();
    assert_eq!(rows.len(), count, "rows of {section}");
    let failed: Vec<String> = rows
        .iter()
        .filter_map(|row| check(row).err().map(|why| format!("{}: {why}", row["id"].as_str().unwrap())))
        .collect();
    assert!(failed.is_empty(), "{} of {section}:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn every_mode_case() {
    all_pass("cases", 61, |row| {
        let policies = row["policies"].as_sequence().unwrap();
        let named = |(n, policy)| Source { file: format!("{n}.yaml"), ..source(policy) };
        let loaded = PolicySet::load(&policies.iter().enumerate().map(named).collect::<Vec<_>>());
        if !loaded.errors.is_empty() {
            return Err(format!("{:?}", loaded.errors));
        }
        let root_namespace = row["rootNamespace"].as_str().unwrap().to_owned();
        let mesh = MeshSettings { root_namespace, ..MeshSettings::default() };
        let labels: BTreeMap<String, String> = row["workload"]["labels"]
            .as_mapping()
            .map(|map| map.iter().map(|(k, v)| (k.as_str().unwrap().into(), v.as_str().unwrap().into())).collect())
            .unwrap_or_default();
        let namespace = row["workload"]["namespace"].as_str().unwrap();
        let effective = EffectivePolicy::resolve(&loaded.set, &mesh, namespace, &labels);
        for expectation in row["expectations"].as_sequence().unwrap() {
            let port = u16::try_from(expectation["port"].as_u64().unwrap()).unwrap();
            let wanted = expectation["mode"].as_str().unwrap();
            let got = effective.mode(port).mode.as_str();
            let explained = explain(&loaded.set, &mesh, namespace, &labels, port).mode.as_str();
            if (got, explained) != (wanted, wanted) {
                return Err(format!("port {port} is {wanted}, not {got}; explain says {explained}"));
            }
        }
        Ok(())
    });
}

#[test]
fn every_invalid_case_has_its_reason_and_no_other() {
    all_pass("invalid", 21, |row| {
        let loaded = PolicySet::load(&[source(&row["document"])]);
        let reasons: Vec<_> = loaded.errors.iter().map(|error| error.reason).collect();
        let fits = reasons == [row["reason"].as_str().unwrap()] && loaded.set.policies().is_empty();
        if fits { Ok(()) } else { Err(format!("{reasons:?}")) }
    });
}

#[test]
fn every_warning_case_is_valid_and_warned_about() {
    all_pass("warnings", 1, |row| {
        let loaded = PolicySet::load(&[source(&row["document"])]);
        let reasons: Vec<_> = loaded.warnings.iter().map(|warning| warning.reason).collect();
        let fits = loaded.errors.is_empty() && reasons == [row["warning"].as_str().unwrap()];
        if fits { Ok(()) } else { Err(format!("{:?} {reasons:?}", loaded.errors)) }
    });
}
