//! Which workloads two sets of policies can treat differently: namespaces and labels that they name, and one of each that they do
//! not.

use std::collections::{BTreeMap, BTreeSet};

use crate::diff::class::WorkloadClass;
use crate::diff::error::DiffError;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

type Labels = BTreeMap<String, String>;

/// The most combinations of labels of one namespace.
const MAX_WORKLOADS: usize = 10_000;

/// Every class of workloads.
pub(super) fn classes(sets: [&PolicySet; 2], mesh: &MeshSettings) -> Result<Vec<WorkloadClass>, DiffError> {
    let mut namespaces = BTreeSet::from([mesh.root_namespace.as_str()]);
    for set in sets {
        namespaces.extend(set.policies.iter().map(|policy| policy.namespace.as_str()));
        namespaces.extend(set.active_break_glass().map(|it| it.policy.namespace.as_str()));
        namespaces.extend(set.authorization.iter().map(|policy| policy.namespace.as_str()));
    }
    let other = unnamed(&namespaces);
    let mut classes = Vec::new();
    for (namespace, is_other) in namespaces.iter().map(|name| (*name, false)).chain([(other.as_str(), true)]) {
        let selectors = selectors(sets, mesh, namespace);
        for labels in labels(&selectors, namespace)? {
            classes.push(WorkloadClass { namespace: namespace.to_owned(), any_other_namespace: is_other, labels });
        }
    }
    Ok(classes)
}

fn unnamed(namespaces: &BTreeSet<&str>) -> String {
    let names = std::iter::once("other".to_owned()).chain((2..).map(|n: u32| format!("other-{n}")));
    names.into_iter().find(|name| !namespaces.contains(name.as_str())).unwrap_or_default()
}

/// What can select a workload of the namespace. A selector of PeerAuthentication means nothing in the root namespace, one of
/// AuthorizationPolicy selects in all of them.
fn selectors<'p>(sets: [&'p PolicySet; 2], mesh: &MeshSettings, namespace: &str) -> BTreeSet<&'p Labels> {
    let is_root = |name: &str| name == mesh.root_namespace;
    let mut selectors = BTreeSet::new();
    for set in sets {
        let here = set.policies.iter().filter(|policy| policy.namespace == namespace && !is_root(namespace));
        selectors.extend(here.map(|policy| &policy.selector));
        let break_glass = set.active_break_glass().map(|it| &it.policy).filter(|it| it.namespace == namespace);
        selectors.extend(break_glass.map(|policy| &policy.selector));
        let authorization = set.authorization.iter().filter(|policy| !policy.for_targets);
        let here = authorization.filter(|policy| policy.namespace == namespace || is_root(&policy.namespace));
        selectors.extend(here.map(|policy| &policy.selector));
    }
    selectors
}

/// The fewest labels for each choice of selectors that one workload can meet at once.
fn labels(selectors: &BTreeSet<&Labels>, namespace: &str) -> Result<Vec<Labels>, DiffError> {
    let mut values: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (key, value) in selectors.iter().copied().flatten() {
        values.entry(key).or_default().insert(value);
    }
    let mut all = vec![Labels::new()];
    for (key, values) in values {
        let with = |labels: &Labels, value: &&String| {
            let mut labels = labels.clone();
            labels.insert(key.clone(), (*value).clone());
            labels
        };
        let more: Vec<Labels> =
            all.iter().flat_map(|labels| values.iter().map(move |value| with(labels, value))).collect();
        all.extend(more);
        if all.len() > MAX_WORKLOADS {
            return Err(DiffError::TooManyWorkloads { namespace: namespace.to_owned(), limit: MAX_WORKLOADS });
        }
    }
    all.sort_by_key(Labels::len);
    let mut seen = BTreeSet::new();
    let selected = |labels: &Labels| -> Vec<bool> {
        selectors.iter().map(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value))).collect()
    };
    all.retain(|labels| seen.insert(selected(labels)));
    Ok(all)
}
