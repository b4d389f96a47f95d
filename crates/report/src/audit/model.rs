//! What an audit says.

use std::collections::BTreeMap;

use portcullis_api::Timestamp;
use serde::Serialize;

use crate::input::Unanswered;

/// Every exception, and what is wrong with them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// The moment that ends are compared with.
    pub as_of: Timestamp,
    /// What it comes to.
    pub status: AuditStatus,
    /// The exceptions, by namespace, kind, name and scope.
    pub items: Vec<Exception>,
    /// What changed since the baseline; none without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Vec<Drift>>,
    /// Whether running sidecars were asked what used the exceptions.
    pub is_observed: bool,
    /// Sidecars that did not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<Unanswered>,
}

/// What an audit comes to, from best to worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditStatus {
    /// Every exception is documented, and none has passed its end.
    Clean,
    /// A sidecar did not answer, so that what is used is not known.
    Unreachable,
    /// An exception is not documented, or has passed its end.
    Findings,
    /// The exceptions are not those of the baseline.
    Drift,
}

/// One exception.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Exception {
    /// Its kind, such as `PeerAuthentication`; `Configuration` for `mesh.defaultMode`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is about: `mesh`, `namespace`, `workload`, `port 8080`, or the host of a DestinationRule.
    pub scope: String,
    /// The labels that it selects; empty selects all.
    pub selector: BTreeMap<String, String>,
    /// What it lets in or sends: a mode, `UNSET`, `DRY-RUN`, `NO-SIDECAR`; or what it does, if only its end makes it an exception.
    pub mode: String,
    /// Who wanted it.
    pub owner: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Until when, as it is written.
    pub expires: Option<String>,
    /// The moment at which it is over.
    pub expires_at: Option<Timestamp>,
    /// When it was created, if its metadata says so.
    pub created: Option<Timestamp>,
    /// When its file was written last, which the caller sets: without a cluster nobody writes a creation time, and a resource is at
    /// least as old as its file. Only for the age in tables.
    #[serde(skip)]
    pub written: Option<Timestamp>,
    /// The file.
    pub file: String,
    /// The line, from 1; 0: none.
    pub line: u32,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// What used it; none if no sidecar was asked, or none can tell.
    pub used: Option<Usage>,
}

/// What is wrong with an exception.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Problem {
    /// It has passed its end.
    Expired,
    /// What is written as its end is no date, so it never ends.
    NoDate,
    /// It has no owner.
    NoOwner,
    /// It has no reason.
    NoReason,
    /// It has no end.
    NoEnd,
}

impl Problem {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NoDate => "end is no date",
            Self::NoOwner => "no owner",
            Self::NoReason => "no reason",
            Self::NoEnd => "no end",
        }
    }
}

/// Connections without mTLS that an exception let through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// How many, as far as ledgers go back.
    pub connections: u64,
    /// How many clients made them.
    pub clients: u64,
    /// The last one.
    pub last_seen: Option<Timestamp>,
}

/// One difference from a baseline.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// What happened.
    pub kind: DriftKind,
    /// The kind of the resource.
    pub resource: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it is about.
    pub scope: String,
    /// Who is responsible for it, now or before.
    pub owner: Option<String>,
    /// Where it is, `file:line`; of what is gone, the file that it was in.
    pub location: String,
    /// What differs; of what was added, what it lets in.
    pub changes: Vec<Change>,
}

/// What happened to an exception.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DriftKind {
    /// It is new.
    Added,
    /// It is another one.
    Changed,
    /// It is gone.
    Removed,
}

impl DriftKind {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// One field that differs.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field.
    pub field: &'static str,
    /// What it was.
    pub before: Option<String>,
    /// What it is.
    pub after: Option<String>,
}
