//! Policies that name the port of a service instead of that of the workload.
//!
//! Policies are about the port on which a workload listens. Who writes the port that clients dial, which `targetPort` translates,
//! protects nothing, and nothing says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use portcullis_yaml::{Diagnostic, Position};

use crate::authorization::Condition;
use crate::directory::labels::LabelIndex;
use crate::directory::service_entry::{Location, Resolution, ServiceEntry};
use crate::directory::workload_entry::WorkloadSpec;
use crate::set::PolicySet;

type Labels = BTreeMap<String, String>;

/// The ports of all workloads, by namespace and labels.
#[derive(Default)]
pub(super) struct PortHints<'s> {
    workloads: HashMap<(&'s str, &'s Labels), WorkloadPorts<'s>>,
}

/// The ports of workloads with the same labels.
#[derive(Default)]
struct WorkloadPorts<'s> {
    own: BTreeSet<u16>,
    /// By the port of a service that is translated.
    translated: BTreeMap<u16, Translated<'s>>,
}

/// A port of the workload, and the entry that gives it another number.
#[derive(Clone, Copy)]
struct Translated<'s> {
    own: u16,
    entry: &'s ServiceEntry,
}

/// A policy, as far as it matters here.
struct PortPolicy<'p> {
    namespace: &'p str,
    name: &'p str,
    selector: &'p Labels,
    ports: BTreeSet<u16>,
    file: &'p str,
    position: Position,
}

impl<'s> PortHints<'s> {
    /// Adds the endpoints of an entry.
    pub(super) fn add(&mut self, entry: &'s ServiceEntry, workloads: &[&'s WorkloadSpec]) {
        if entry.location == Location::MeshExternal || entry.resolution == Resolution::None {
            return;
        }
        for workload in workloads {
            let ports = self.workloads.entry((&*entry.meta.namespace, &*workload.labels)).or_default();
            for port in &entry.ports {
                let own = workload.port(port);
                ports.own.insert(own);
                if own != port.number {
                    let translated = Translated { own, entry };
                    let held = ports.translated.entry(port.number).or_insert(translated);
                    *held = held.first(translated);
                }
            }
        }
    }

    /// A warning for each port of a policy that some workload has only by another number.
    pub(super) fn warnings(mut self, set: &PolicySet) -> Vec<Diagnostic> {
        // A port that the workload also has itself may well be meant.
        self.workloads.retain(|_, ports| {
            let WorkloadPorts { own, translated } = ports;
            translated.retain(|port, _| !own.contains(port));
            !translated.is_empty()
        });
        if self.workloads.is_empty() {
            return Vec::new();
        }
        let mut index = LabelIndex::default();
        let mut namespaces: HashMap<&str, BTreeMap<u16, Translated<'_>>> = HashMap::new();
        for ((namespace, labels), ports) in &self.workloads {
            index.add(namespace, labels, &ports.translated);
            let of_namespace = namespaces.entry(namespace).or_default();
            merge(of_namespace, &ports.translated, ports.translated.keys());
        }
        let hint = |policy: &PortPolicy<'_>| {
            let mut found = BTreeMap::new();
            if policy.selector.is_empty() {
                let ports = namespaces.get(policy.namespace);
                ports.into_iter().for_each(|ports| merge(&mut found, ports, &policy.ports));
            } else if !policy.ports.is_empty() {
                let selected = index.select(policy.namespace, policy.selector);
                selected.into_iter().for_each(|ports| merge(&mut found, ports, &policy.ports));
            }
            found.into_iter().map(|(port, translated)| policy.warning(port, translated)).collect::<Vec<_>>()
        };
        policies(set).flat_map(|policy| hint(&policy)).collect()
    }
}

/// Adds the entries of `ports`.
fn merge<'s, 'a>(
    into: &mut BTreeMap<u16, Translated<'s>>,
    from: &BTreeMap<u16, Translated<'s>>,
    ports: impl IntoIterator<Item = &'a u16>,
) {
    for port in ports {
        if let Some(translated) = from.get(port) {
            let held = into.entry(*port).or_insert(*translated);
            *held = held.first(*translated);
        }
    }
}

impl Translated<'_> {
    /// The one that is reported: the same in whatever order entries are read.
    fn first(self, other: Self) -> Self {
        let order = |of: &Self| (of.entry.meta.label(), of.own);
        if order(&other) < order(&self) { other } else { self }
    }
}

impl PortPolicy<'_> {
    fn warning(&self, port: u16, translated: Translated<'_>) -> Diagnostic {
        let Translated { own, entry } = translated;
        let message = format!(
            "{}/{} names port {port}, which is the port of the service {} ({}:{}); the workload listens on {own}, and \
             policies are about that port",
            self.namespace,
            self.name,
            entry.meta.label(),
            entry.meta.file,
            entry.meta.line
        );
        Diagnostic::at(self.file, self.position, "service-port", message)
    }
}

fn policies(set: &PolicySet) -> impl Iterator<Item = PortPolicy<'_>> {
    let peers = set.policies().iter().map(|policy| PortPolicy {
        namespace: &policy.namespace,
        name: &policy.name,
        selector: &policy.selector,
        ports: policy.ports.keys().copied().collect(),
        file: &policy.file,
        position: Position { line: policy.line, column: policy.column },
    });
    let authorization = set.authorization_policies().iter().map(|policy| PortPolicy {
        namespace: &policy.namespace,
        name: &policy.name,
        selector: &policy.selector,
        ports: policy.rules.iter().flat_map(|rule| rule.conditions()).flat_map(ports).collect(),
        file: &policy.file,
        position: Position { line: policy.line, column: policy.column },
    });
    peers.chain(authorization)
}

fn ports(condition: &Condition) -> impl Iterator<Item = u16> {
    let values = match condition {
        Condition::Port(values) => Some(values),
        _ => None,
    };
    values.into_iter().flat_map(|values| values.values().iter().chain(values.not_values()).copied())
}
