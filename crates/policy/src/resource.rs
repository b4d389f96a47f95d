//! A PeerAuthentication, and what reading a resource results in.

use std::collections::BTreeMap;

use portcullis_yaml::Problems;
use time::OffsetDateTime;

use crate::documentation::Documentation;
use crate::mode::Mode;

/// A valid PeerAuthentication.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerAuthentication {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.creationTimestamp`; `None` is older than any.
    pub created: Option<OffsetDateTime>,
    /// The annotation `istio.io/dry-run`: it is evaluated and logged, and decides nothing.
    pub dry_run: bool,
    /// Who wanted it, why, and until when. It decides nothing.
    pub documentation: Documentation,
    /// `spec.selector.matchLabels`; empty means that there is no selection.
    pub selector: BTreeMap<String, String>,
    /// `spec.mtls.mode`; `None` is UNSET.
    pub mode: Option<Mode>,
    /// `spec.portLevelMtls`; a mode of `None` is UNSET.
    pub ports: BTreeMap<u16, Option<Mode>>,
    /// The file in which it is written.
    pub file: String,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// The column at which it begins, from 1.
    pub column: u32,
}

impl PeerAuthentication {
    /// Whether it comes before `other` among the policies of one scope: the older first (no timestamp is older than any),
    /// then by name and namespace, bytewise. The first one applies, the others do not. One with `istio.io/dry-run` comes before
    /// those without, so that a dry run shows what it would do in their place.
    #[must_use]
    pub fn precedes(&self, other: &Self) -> bool {
        let order = |policy: &Self| (!policy.dry_run, policy.created);
        (order(self), &self.name, &self.namespace) < (order(other), &other.name, &other.namespace)
    }
}

/// The result of reading one document.
pub(crate) struct ReadResource<P> {
    /// Namespace and name, also when other fields are wrong: a duplicate is then found in the same run.
    pub(crate) identity: Option<(String, String)>,
    /// The resource, if nothing is wrong with it.
    pub(crate) policy: Option<P>,
    pub(crate) problems: Problems,
    pub(crate) warnings: Problems,
}
