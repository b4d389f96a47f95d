//! What all resources of the directory have: name, age, place.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::documentation::Documentation;

/// Where a resource is written, and what it is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceMeta {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.creationTimestamp`; `None` is older than any.
    pub created: Option<OffsetDateTime>,
    /// Who wanted it, why, and until when. It decides nothing.
    pub documentation: Documentation,
    /// The file in which it is written.
    pub file: Arc<str>,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// The column at which it begins, from 1.
    pub column: u32,
}

impl ResourceMeta {
    /// `namespace/name`: for logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// The older first (no timestamp is older than any), then by name and namespace, bytewise.
    #[must_use]
    pub fn by_age(&self, other: &Self) -> Ordering {
        let order = |meta: &Self| (meta.created, Arc::clone(&meta.name), Arc::clone(&meta.namespace));
        order(self).cmp(&order(other))
    }

    /// A reference to the rule of this name.
    #[must_use]
    pub fn reference(&self) -> RuleRef {
        RuleRef { label: self.label().into(), file: Arc::clone(&self.file), line: self.line }
    }
}

/// A DestinationRule that decided something: for logs and explanations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RuleRef {
    /// `namespace/name`.
    pub label: Arc<str>,
    /// The file in which it is written.
    pub file: Arc<str>,
    /// The line on which it begins, from 1.
    pub line: u32,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DestinationRule {} ({}:{})", self.label, self.file, self.line)
    }
}
