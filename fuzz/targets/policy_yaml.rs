//! Policy files by any author: a mistake must be reported, and must never crash the reader or be read in two ways.
//!
//! - Loading is deterministic, and everything that is said about a file points into it.
//! - A set without errors, loaded with its files in another order, gives every workload and port the same mode.
//! - `explain` says what `resolve` decides.
//! - The same resource twice is an error.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use portcullis_policy::{EffectivePolicy, Loaded, MeshSettings, PolicySet, Source, explain};

// 0xff is in no UTF-8 text; it parts the input into files.
fuzz_target!(|input: &[u8]| {
    let file = |(n, text): (usize, &[u8])| Source { file: format!("{n}.yaml"), text: text.to_vec() };
    let mut sources: Vec<Source> = input.split(|byte| *byte == 0xff).take(4).enumerate().map(file).collect();
    let loaded = PolicySet::load(&sources);
    points_into(&loaded, &sources);
    let again = PolicySet::load(&sources);
    assert_eq!((&loaded.set, &loaded.errors, &loaded.warnings), (&again.set, &again.errors, &again.warnings));
    if !loaded.errors.is_empty() {
        return;
    }
    sources.reverse();
    let reversed = PolicySet::load(&sources);
    assert!(reversed.errors.is_empty(), "the order of files makes an error: {:?}", reversed.errors);
    let said = |set: &PolicySet| {
        let mesh = set.mesh();
        (mesh.key_type(), [&mesh.secret_ttl, &mesh.workload_cert_ttl].map(|ttl| ttl.as_ref().map(|ttl| ttl.value)))
    };
    assert_eq!(said(&loaded.set), said(&reversed.set), "the order of files decides");
    let mesh = MeshSettings::default();
    for (namespace, labels) in workloads(&loaded) {
        let effective = EffectivePolicy::resolve(&loaded.set, &mesh, &namespace, &labels);
        let other = EffectivePolicy::resolve(&reversed.set, &mesh, &namespace, &labels);
        let ports: BTreeSet<u16> = effective.ports().chain([1, 8080, 65535]).take(20).collect();
        for port in ports {
            let mode = effective.mode(port).mode;
            assert_eq!(other.mode(port).mode, mode, "{namespace} {labels:?} {port}: the order of files decides");
            let explained = explain(&loaded.set, &mesh, &namespace, &labels, port);
            assert_eq!(explained.mode, mode, "{namespace} {labels:?} {port}");
        }
    }
    if !loaded.set.policies().is_empty() {
        let twice: Vec<Source> = sources.iter().chain(&sources).cloned().collect();
        let found = PolicySet::load(&twice).errors;
        assert!(found.iter().any(|error| error.reason == "duplicate-resource"), "{found:?}");
    }
});

fn points_into(loaded: &Loaded, sources: &[Source]) {
    for found in loaded.errors.iter().chain(&loaded.warnings) {
        let source = sources.iter().find(|source| source.file == found.file);
        let lines = source.map_or(0, |source| source.text.iter().filter(|byte| **byte == b'\n').count() + 1);
        // A lone carriage return ends a line in YAML as well.
        let returns = source.map_or(0, |source| source.text.iter().filter(|byte| **byte == b'\r').count());
        let line = usize::try_from(found.line).unwrap_or(usize::MAX);
        assert!(line >= 1 && line <= lines + returns + 1 && found.column >= 1, "{found}");
        assert!(!found.reason.is_empty() && !found.message.is_empty());
    }
}

/// Some workloads that the policies are about, and one that none is.
fn workloads(loaded: &Loaded) -> Vec<(String, BTreeMap<String, String>)> {
    let mut all = vec![("elsewhere".to_owned(), BTreeMap::new())];
    for policy in loaded.set.policies().iter().take(8) {
        all.push((policy.namespace.clone(), policy.selector.clone()));
    }
    all
}
