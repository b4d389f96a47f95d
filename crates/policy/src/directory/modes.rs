//! The PeerAuthentication mode of every endpoint, with policies found by namespace and label: ten thousand of each are fine.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::decided::Decided;
use crate::evaluation::Evaluation;
use crate::resolve::{Modes, choose_among};
use crate::resource::PeerAuthentication;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

type Labels = BTreeMap<String, String>;

/// The policies of one namespace.
#[derive(Default)]
struct NamespacePolicies<'p> {
    /// Without a selector: the one that goes before the others.
    unselected: Option<&'p PeerAuthentication>,
    /// Each under the label of its selector that the fewest have.
    by_label: HashMap<(&'p str, &'p str), Vec<&'p PeerAuthentication>>,
}

/// Modes by workload.
pub(super) struct ModeTable<'p> {
    mesh: &'p MeshSettings,
    namespaces: HashMap<&'p str, NamespacePolicies<'p>>,
    known: HashMap<(Arc<str>, Arc<Labels>), Modes>,
}

impl<'p> ModeTable<'p> {
    pub(super) fn new(set: &'p PolicySet, mesh: &'p MeshSettings) -> Self {
        let counted = || set.policies().iter().filter(|policy| Evaluation::Enforced.includes(policy.dry_run));
        let mut counts: HashMap<(&str, &str, &str), usize> = HashMap::new();
        for policy in counted() {
            for (key, value) in &policy.selector {
                *counts.entry((&policy.namespace, key, value)).or_default() += 1;
            }
        }
        let mut namespaces: HashMap<&str, NamespacePolicies<'_>> = HashMap::new();
        for policy in counted() {
            let of_namespace = namespaces.entry(&policy.namespace).or_default();
            let frequency = |label: &(&String, &String)| counts.get(&(&policy.namespace, label.0, label.1)).copied();
            match policy.selector.iter().min_by_key(frequency) {
                Some((key, value)) => of_namespace.by_label.entry((key, value)).or_default().push(policy),
                None if of_namespace.unselected.is_none_or(|held| policy.precedes(held)) => {
                    of_namespace.unselected = Some(policy);
                }
                None => {}
            }
        }
        Self { mesh, namespaces, known: HashMap::new() }
    }

    /// The mode of a port of a workload.
    pub(super) fn mode(&mut self, namespace: &Arc<str>, labels: &Arc<Labels>, port: u16) -> Arc<Decided> {
        Arc::clone(self.modes(namespace, labels).mode(port))
    }

    /// The ports of a workload with a mode of their own.
    pub(super) fn ports(&mut self, namespace: &Arc<str>, labels: &Arc<Labels>) -> Vec<u16> {
        self.modes(namespace, labels).ports().collect()
    }

    fn modes(&mut self, namespace: &Arc<str>, labels: &Arc<Labels>) -> &Modes {
        let Self { mesh, namespaces, known } = self;
        let modes = known.entry((Arc::clone(namespace), Arc::clone(labels)));
        modes.or_insert_with(|| resolve(mesh, namespaces, namespace, labels))
    }
}

fn resolve(
    mesh: &MeshSettings,
    namespaces: &HashMap<&str, NamespacePolicies<'_>>,
    namespace: &str,
    labels: &Labels,
) -> Modes {
    let root = namespaces.get(mesh.root_namespace.as_str()).and_then(|policies| policies.unselected);
    let own = namespaces.get(namespace);
    let selected = labels.iter().filter_map(|(key, value)| own?.by_label.get(&(key.as_str(), value.as_str())));
    let candidates = [root, own.and_then(|policies| policies.unselected)].into_iter().flatten();
    let candidates = candidates.chain(selected.flatten().copied());
    Modes::new(&choose_among(candidates, mesh, namespace, labels, Evaluation::Enforced), mesh.default_mode)
}
