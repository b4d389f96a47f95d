//! Which policies reach a workload, in the order of evaluation, and why the others do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::authorization::resource::{AuthorizationAction, AuthorizationPolicy};
use crate::authorization::rule::{Condition, Rule};
use crate::resolve::{OTHER_NAMESPACE, SELECTOR_MISMATCH};
use crate::set::PolicySet;
use crate::workload::MeshSettings;

/// Why a policy does not apply: it has `targetRefs`, which are for waypoints and gateways.
const TARGET_REFS: &str = "target-refs";

/// The AuthorizationPolicies of a set, seen from one workload.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AuthorizationOverview {
    /// In the order of evaluation: DENY, ALLOW, AUDIT, each by namespace and name.
    pub applied: Vec<AppliedPolicy>,
    /// By namespace and name.
    pub ignored: Vec<IgnoredAuthorizationPolicy>,
}

/// A policy that applies.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedPolicy {
    /// Its action.
    pub action: AuthorizationAction,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file that it was read from.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// How many rules it has.
    pub rules: usize,
    /// It is evaluated and logged, and decides nothing.
    pub dry_run: bool,
    /// It has a selector and is in the root namespace, so it reaches workloads of every namespace.
    pub root_selector: bool,
    /// Rules that can never match a connection, since they are about HTTP; from 0.
    pub rules_without_effect: Vec<usize>,
    /// Rules whose fields of HTTP are ignored, so that they match more than they say; from 0.
    pub rules_widened: Vec<usize>,
}

/// A policy that does not apply.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct IgnoredAuthorizationPolicy {
    /// Its action.
    pub action: AuthorizationAction,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file that it was read from.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// Why: `other-namespace`, `selector-mismatch` or `target-refs`.
    pub reason: &'static str,
}

impl AuthorizationOverview {
    /// Sorts the policies of a set by whether they apply.
    #[must_use]
    pub fn new(set: &PolicySet, mesh: &MeshSettings, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let (mut applied, mut ignored) = (Vec::new(), Vec::new());
        for policy in set.authorization_policies() {
            if policy.applies_to(&mesh.root_namespace, namespace, labels) {
                applied.push(AppliedPolicy::new(policy, &mesh.root_namespace));
            } else {
                ignored.push(IgnoredAuthorizationPolicy::new(policy, &mesh.root_namespace, namespace));
            }
        }
        applied.sort_by(|one, other| {
            (one.action, &one.namespace, &one.name).cmp(&(other.action, &other.namespace, &other.name))
        });
        ignored.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Self { applied, ignored }
    }
}

impl AppliedPolicy {
    fn new(policy: &Arc<AuthorizationPolicy>, root_namespace: &str) -> Self {
        let has_http = |rule: &Rule| rule.conditions().any(|condition| matches!(condition, Condition::Http(_)));
        let numbers = policy.rules.iter().enumerate().filter(|(_, rule)| has_http(rule)).map(|(number, _)| number);
        let is_allow = policy.action == AuthorizationAction::Allow;
        let (rules_without_effect, rules_widened) = numbers.partition(|_| is_allow);
        Self {
            action: policy.action,
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            file: policy.file.clone(),
            line: policy.line,
            rules: policy.rules.len(),
            dry_run: policy.dry_run,
            root_selector: policy.namespace == root_namespace && !policy.selector.is_empty(),
            rules_without_effect,
            rules_widened,
        }
    }
}

impl IgnoredAuthorizationPolicy {
    fn new(policy: &Arc<AuthorizationPolicy>, root_namespace: &str, namespace: &str) -> Self {
        let reason = if policy.namespace != namespace && policy.namespace != root_namespace {
            OTHER_NAMESPACE
        } else if policy.for_targets {
            TARGET_REFS
        } else {
            SELECTOR_MISMATCH
        };
        Self {
            action: policy.action,
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            file: policy.file.clone(),
            line: policy.line,
            reason,
        }
    }
}
