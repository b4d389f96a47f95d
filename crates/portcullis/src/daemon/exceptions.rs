//! When policies that apply to this workload pass their end, for the metric.

use std::collections::BTreeMap;

use portcullis_config::Settings;
use portcullis_policy::{Documentation, PolicySet};

/// The end in Unix time of each policy that has one, by `namespace/name`; of two kinds with one name the first.
pub(super) fn ends(settings: &Settings, set: &PolicySet) -> BTreeMap<String, i64> {
    let (workload, root) = (&settings.workload, &settings.mesh.policy.root_namespace);
    let applies = |namespace: &String, selector: &BTreeMap<String, String>| {
        let selects = |(name, value): (&String, &String)| workload.labels.get(name) == Some(value);
        (*namespace == workload.namespace || namespace == root) && selector.iter().all(selects)
    };
    let mut ends = BTreeMap::new();
    let mut add = |namespace: &str, name: &str, documentation: &Documentation| {
        if let Some(end) = documentation.expires.as_ref().and_then(|expires| expires.unix) {
            let first = ends.entry(format!("{namespace}/{name}")).or_insert(end);
            *first = end.min(*first);
        }
    };
    for policy in set.policies().iter().filter(|policy| applies(&policy.namespace, &policy.selector)) {
        add(&policy.namespace, &policy.name, &policy.documentation);
    }
    for policy in set.authorization_policies().iter().filter(|policy| applies(&policy.namespace, &policy.selector)) {
        add(&policy.namespace, &policy.name, &policy.documentation);
    }
    ends
}
