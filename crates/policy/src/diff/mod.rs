//! What changes between two sets of policies: the exact set of connections that one answers differently from the other.
//!
//! Answers are those of PeerAuthentication and AuthorizationPolicy together ([`EffectivePolicy::answer`]). Workloads, ports and
//! clients are finite many, and a decision tree over the patterns of both sets divides the rest (`search`). Whether a part of it
//! is empty is decided exactly: for identities and server names by automata (`language`), for addresses by the ends of ranges.

mod class;
mod decision;
mod error;
mod formula;
mod language;
mod names;
mod ranges;
mod search;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use crate::authorization::{AuthorizationAction, Condition, Rule};
use crate::diff::decision::verdict;
use crate::diff::formula::{Atoms, Formulas};
use crate::diff::search::Port;
use crate::evaluation::Evaluation;
use crate::resolve::EffectivePolicy;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

pub use class::{Client, Connection, PortClass, WorkloadClass};
pub use decision::{AccessDecision, DecidedByPolicy};
pub use error::DiffError;

/// A class of connections that the two sets answer differently.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The workload.
    pub workload: WorkloadClass,
    /// The ports.
    pub ports: PortClass,
    /// How the client speaks.
    pub client: Client,
    /// What else is true or false of the connections: conditions with a single value.
    pub conditions: Vec<(Condition, bool)>,
    /// The answer of the old set.
    pub was: AccessDecision,
    /// The answer of the new set.
    pub now: AccessDecision,
    /// One of the connections, with the shortest identity that there is.
    pub witness: Connection,
}

impl Change {
    /// Whether a connection belongs to the class, apart from its workload.
    #[must_use]
    pub fn contains(&self, connection: &Connection) -> bool {
        let facts = connection.facts();
        self.ports.contains(connection.port)
            && connection.client == self.client
            && self.conditions.iter().all(|(condition, holds)| condition.holds(&facts) == *holds)
    }
}

/// How many times classes of one workload are divided at most.
const MAX_SPLITS: usize = 100_000;

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'p> {
    /// The set that is in force.
    pub old: &'p PolicySet,
    /// The set that may take its place.
    pub new: &'p PolicySet,
    /// Settings of the mesh, the same for both.
    pub mesh: &'p MeshSettings,
    /// Which policies count.
    pub evaluation: Evaluation,
}

impl Comparison<'_> {
    /// What changes for every workload that the policies tell apart; by workload, port and client.
    ///
    /// # Errors
    /// If that are too many.
    pub fn all_workloads(&self) -> Result<Vec<Change>, DiffError> {
        let mut changes = Vec::new();
        for workload in workloads::classes([self.old, self.new], self.mesh)? {
            self.add(workload, &mut changes)?;
        }
        Ok(changes)
    }

    /// What changes for one workload.
    ///
    /// # Errors
    /// If the policies divide its connections into too many classes.
    pub fn workload(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Result<Vec<Change>, DiffError> {
        let mut changes = Vec::new();
        let (namespace, labels) = (namespace.to_owned(), labels.clone());
        self.add(WorkloadClass { namespace, any_other_namespace: false, labels }, &mut changes)?;
        Ok(changes)
    }

    fn add(&self, workload: WorkloadClass, changes: &mut Vec<Change>) -> Result<(), DiffError> {
        let [old, new] = [self.old, self.new].map(|set| {
            EffectivePolicy::evaluate(set, self.mesh, &workload.namespace, &workload.labels, self.evaluation)
        });
        if content(&old) == content(&new) {
            return Ok(());
        }
        let ports = named_ports([&old, &new]);
        let mut atoms = Atoms::default();
        let formulas = Formulas::new([&old, &new], &mut atoms);
        let mut budget = MAX_SPLITS;
        for named in ports.iter().copied().map(Some).chain([None]) {
            let port = named.unwrap_or_else(|| unnamed(&ports));
            let modes = [&old, &new].map(|policy| policy.mode(port).mode);
            let search = Port { atoms: &atoms, formulas: &formulas, modes, port };
            for client in Client::ALL {
                // TLS of its own has nothing that plaintext has not, but a name.
                if client == Client::Tls && !atoms.has_server_names() {
                    continue;
                }
                let found = search.changes(client, &mut budget).map_err(|_out| DiffError::TooManyClasses {
                    workload: workload.clone(),
                    port,
                    limit: MAX_SPLITS,
                })?;
                changes.extend(found.into_iter().map(|found| Change {
                    workload: workload.clone(),
                    ports: named.map_or_else(|| PortClass::AllBut(ports.clone()), PortClass::One),
                    client,
                    was: verdict(&old, &found.witness),
                    now: verdict(&new, &found.witness),
                    conditions: found.literals,
                    witness: found.witness,
                }));
            }
        }
        Ok(())
    }
}

/// What an answer depends on, without where it is written.
fn content(policy: &EffectivePolicy) -> impl PartialEq + use<> {
    let modes: BTreeMap<u16, _> = policy.ports().map(|port| (port, policy.mode(port).mode)).collect();
    let rules = |action| {
        let rules = policy.authorizer().rules(action).cloned().map(|rule| Rule { line: 0, ..rule });
        rules.collect::<BTreeSet<_>>()
    };
    let (deny, allow) = (rules(AuthorizationAction::Deny), rules(AuthorizationAction::Allow));
    (policy.workload().mode, modes, deny, policy.authorizer().restricts(), allow)
}

fn named_ports(policies: [&EffectivePolicy; 2]) -> BTreeSet<u16> {
    let mut ports = BTreeSet::new();
    for policy in policies {
        ports.extend(policy.ports());
        let actions = [AuthorizationAction::Deny, AuthorizationAction::Allow];
        for condition in
            actions.into_iter().flat_map(|action| policy.authorizer().rules(action)).flat_map(Rule::conditions)
        {
            if let Condition::Port(values) = condition {
                ports.extend(values.values().iter().chain(values.not_values()));
            }
        }
    }
    // Nothing listens on it.
    ports.remove(&0);
    ports
}

/// A port that is not named.
fn unnamed(ports: &BTreeSet<u16>) -> u16 {
    [8080, 80].into_iter().chain(1..=u16::MAX).find(|port| !ports.contains(port)).unwrap_or_default()
}
