//! Policies that have no effect because of others, or of their namespace: allowed, but hardly ever intended.
//!
//! Istio picks one policy in each scope and merges none, so a second one in a namespace silently has no effect; and it ignores
//! a selector in the root namespace. Both are easy to write by accident, so both cause a warning.

use std::collections::{BTreeMap, HashMap};

use portcullis_yaml::{Diagnostic, Position};

use crate::evaluation::Evaluation;
use crate::resolve::{ROOT_SELECTOR, candidate, choose};
use crate::resource::PeerAuthentication;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

const CONFLICT: &str = "policy-conflict";

/// Policies of which one applies: those of one namespace with equal selectors. A dry run does not compete with what is in
/// force.
type Group<'p> = (&'p str, &'p BTreeMap<String, String>, bool);

fn group(policy: &PeerAuthentication) -> Group<'_> {
    (&policy.namespace, &policy.selector, policy.dry_run)
}

/// Conflicts that hold for every workload: policies of one namespace with equal selectors. One of them applies and
/// the others never do. One pass, with a look-up of the group for each.
pub(crate) fn in_set(policies: &[PeerAuthentication]) -> Vec<Diagnostic> {
    let mut winners: HashMap<Group<'_>, &PeerAuthentication> = HashMap::new();
    for policy in policies {
        let held = winners.entry(group(policy)).or_insert(policy);
        if policy.precedes(held) {
            *held = policy;
        }
    }
    let loser = |policy: &PeerAuthentication| {
        let winner = winners.get(&group(policy))?;
        (!std::ptr::eq(*winner, policy)).then(|| shadowed(policy, winner))
    };
    policies.iter().filter_map(loser).collect()
}

impl PolicySet {
    /// Warnings about policies that were meant for this workload and have no effect on it: shadowed by another one of the
    /// same scope although their selectors differ, or with a selector in the root namespace.
    ///
    /// [`PolicySet::load`] cannot know them: they depend on the workload and on the root namespace. Policies with equal
    /// selectors, which it does report, are not repeated.
    #[must_use]
    pub fn warnings_for(
        &self,
        mesh: &MeshSettings,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Diagnostic> {
        let chosen = choose(self, mesh, namespace, labels, Evaluation::Enforced);
        let mut warnings = Vec::new();
        for policy in self.policies() {
            match candidate(policy, mesh, namespace, labels, Evaluation::Enforced) {
                Ok(scope) => warnings.extend(
                    chosen
                        .get(scope)
                        .filter(|winner| winner.selector != policy.selector)
                        .map(|winner| shadowed(policy, winner)),
                ),
                Err(ROOT_SELECTOR) => warnings.push(root_selector(policy)),
                Err(_) => {}
            }
        }
        warnings
    }
}

fn shadowed(policy: &PeerAuthentication, winner: &PeerAuthentication) -> Diagnostic {
    let why = if policy.created == winner.created { "comes first by name" } else { "is older" };
    let message = format!(
        "has no effect beside {}/{} ({}:{}), which {why}: one policy holds in each scope and none are merged; put both \
         into one, or make their selectors exclude each other",
        winner.namespace, winner.name, winner.file, winner.line
    );
    about(policy, CONFLICT, message)
}

fn root_selector(policy: &PeerAuthentication) -> Diagnostic {
    let message = format!(
        "has no effect: {} is the root namespace, where a policy with a selector is ignored; put it into the workload's \
         namespace",
        policy.namespace
    );
    Diagnostic { field: "spec.selector".to_owned(), ..about(policy, ROOT_SELECTOR, message) }
}

fn about(policy: &PeerAuthentication, reason: &'static str, message: String) -> Diagnostic {
    let position = Position { line: policy.line, column: policy.column };
    let message = format!("{}/{} {message}", policy.namespace, policy.name);
    Diagnostic::at(&policy.file, position, reason, message)
}
