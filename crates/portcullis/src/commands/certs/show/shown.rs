//! A certificate, and what is to be said of it.

use portcullis_identity::{Details, SvidError};

/// One certificate, as far as it can be read.
pub(super) struct Shown {
    /// Or why it cannot be read strictly.
    pub(super) details: Result<Details, SvidError>,
    pub(super) kind: CertKind,
    /// Why it may not be used in the mesh as what it is.
    pub(super) unfit: Option<SvidError>,
    pub(super) expiry: Expiry,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum CertKind {
    Leaf,
    Intermediate,
    Root,
    Unreadable,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Expiry {
    Valid,
    AboutToExpire,
    Expired,
    NotYetValid,
}
