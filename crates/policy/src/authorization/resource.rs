//! One AuthorizationPolicy document.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;

use crate::authorization::rule::Rule;
use crate::documentation::Documentation;

/// `spec.action`. CUSTOM is refused when a document is read: there is no external authorizer.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum AuthorizationAction {
    /// A connection that a rule matches is refused, whatever any ALLOW says.
    Deny,
    /// If a workload has a policy with this action, only what a rule of one matches is allowed.
    #[default]
    Allow,
    /// What a rule matches is logged and counted. Never decides.
    Audit,
}

impl AuthorizationAction {
    /// Every action, in the order of evaluation.
    pub const ALL: [Self; 3] = [Self::Deny, Self::Allow, Self::Audit];

    /// Istio's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "DENY",
            Self::Allow => "ALLOW",
            Self::Audit => "AUDIT",
        }
    }
}

impl fmt::Display for AuthorizationAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A valid AuthorizationPolicy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuthorizationPolicy {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`. It does not matter: no policy takes precedence over another one.
    pub created: Option<OffsetDateTime>,
    /// `spec.selector.matchLabels`; empty selects every workload.
    pub selector: BTreeMap<String, String>,
    /// `spec.action`.
    pub action: AuthorizationAction,
    /// The annotation `istio.io/dry-run`: it is evaluated and logged, and decides nothing.
    pub dry_run: bool,
    /// Who wanted it, why, and until when. It decides nothing.
    pub documentation: Documentation,
    /// Whether it has `targetRefs`, and so is not meant for sidecars.
    pub for_targets: bool,
    /// `spec.rules`. Without any it matches nothing.
    pub rules: Vec<Rule>,
    /// The file in which it is written.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// The column at which it begins, from 1.
    pub column: u32,
}

impl AuthorizationPolicy {
    /// `namespace/name`: for logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it applies to a workload. A policy of the root namespace applies in every namespace, with a selector too: the
    /// opposite of PeerAuthentication.
    #[must_use]
    pub fn applies_to(&self, root_namespace: &str, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.namespace == namespace || self.namespace == root_namespace)
            && !self.for_targets
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
