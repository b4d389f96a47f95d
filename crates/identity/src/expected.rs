//! The identities that a client accepts from the server it calls.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::id::SpiffeId;

/// A set of accepted identities. Never empty, so that a missing expectation cannot be taken for "any identity".
#[derive(Clone, Eq, PartialEq)]
pub struct ExpectedIds(Arc<BTreeSet<SpiffeId>>);

/// Why a set of expected identities is unusable.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExpectedIdsError {
    /// The set is empty.
    #[error("no identity is expected; name at least one, such as spiffe://cluster.local/ns/shop/sa/cart")]
    Empty,
    /// An ID that no workload's certificate can have.
    #[error("{0} names a trust domain, not a workload; an expected identity needs a path")]
    NoPath(SpiffeId),
}

impl ExpectedIds {
    /// Collects the set; repeated identities count once.
    ///
    /// # Errors
    /// When there is none, or one without a path, which no server could ever present.
    pub fn new(ids: impl IntoIterator<Item = SpiffeId>) -> Result<Self, ExpectedIdsError> {
        let ids: BTreeSet<_> = ids.into_iter().collect();
        if ids.is_empty() {
            return Err(ExpectedIdsError::Empty);
        }
        match ids.iter().find(|id| id.path().is_empty()) {
            Some(id) => Err(ExpectedIdsError::NoPath(id.clone())),
            None => Ok(Self(Arc::new(ids))),
        }
    }

    /// Whether the identity is one of them, byte for byte.
    #[must_use]
    pub fn contains(&self, id: &SpiffeId) -> bool {
        self.0.contains(id)
    }

    /// The identities in order.
    pub fn iter(&self) -> impl Iterator<Item = &SpiffeId> {
        self.0.iter()
    }
}

impl fmt::Debug for ExpectedIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for ExpectedIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, id) in self.iter().enumerate() {
            write!(f, "{}{id}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(text).unwrap()
    }

    #[test]
    fn empty_expectation_is_error() {
        assert_eq!(ExpectedIds::new([]), Err(ExpectedIdsError::Empty));
    }

    #[test]
    fn an_expectation_without_a_path_is_an_error() {
        let domain = id("spiffe://example.org");
        assert_eq!(ExpectedIds::new([domain.clone()]), Err(ExpectedIdsError::NoPath(domain)));
    }

    #[test]
    fn only_the_listed_identities_match() {
        let expected = ExpectedIds::new([id("spiffe://example.org/a"), id("spiffe://example.org/b")]).unwrap();
        assert!(expected.contains(&id("spiffe://example.org/a")));
        assert!(!expected.contains(&id("spiffe://example.org/A")));
        assert!(!expected.contains(&id("spiffe://example.org/a/b")));
        assert!(!expected.contains(&id("spiffe://other.test/a")));
        assert_eq!(expected.to_string(), "spiffe://example.org/a, spiffe://example.org/b");
        assert_eq!(format!("{expected:?}"), "{SpiffeId(spiffe://example.org/a), SpiffeId(spiffe://example.org/b)}");
    }
}
