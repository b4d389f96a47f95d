//! Trust domains: their names, and which of them a workload trusts.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::id_error::{IdError, MAX_ID_LEN, MAX_TRUST_DOMAIN_LEN, SCHEME};

/// A valid trust domain name, such as `cluster.local`.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Parses a bare name, or the ID of the trust domain itself (`spiffe://NAME`).
    ///
    /// # Errors
    /// The first rule that the text breaks; an ID with a path is refused, so that a workload's ID pasted here is noticed.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_LEN {
            return Err(IdError::Length { length: text.len() });
        }
        let (name, offset) = match text.strip_prefix(SCHEME) {
            Some(name) => (name, SCHEME.len()),
            None if text.contains("://") => return Err(IdError::Scheme),
            None => (text, 0),
        };
        if name.contains('/') && !name.starts_with('/') {
            return Err(IdError::TdHasPath);
        }
        check(name.as_bytes(), offset)?;
        Ok(Self(name.into()))
    }

    /// For a name that is part of a checked ID.
    pub(crate) fn from_checked(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Lets a map keyed by trust domain be searched with a borrowed name; sound since equality, order and hash are those of the text.
impl std::borrow::Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Checks a name that begins at `offset` in the whole input. The length is checked before the bytes.
pub(crate) fn check(name: &[u8], offset: usize) -> Result<(), IdError> {
    if name.is_empty() {
        return Err(IdError::TdMissing);
    }
    if name.len() > MAX_TRUST_DOMAIN_LEN {
        return Err(IdError::TdLength { length: name.len() });
    }
    let is_allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    match name.iter().enumerate().find(|&(_, &byte)| !is_allowed(byte)) {
        Some((at, &byte)) => Err(IdError::TdChar { byte, offset: offset.saturating_add(at) }),
        None => Ok(()),
    }
}

/// The trust domains of a workload: its own with its aliases, which share one bundle, and foreign ones, each with its own.
///
/// There is no "any": a domain that is not listed is not trusted, whichever CA signed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustedDomains {
    own: TrustDomain,
    aliases: BTreeSet<TrustDomain>,
    foreign: BTreeSet<TrustDomain>,
}

/// Why a set of trusted domains is invalid.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustedDomainsError {
    /// Two bundles would apply to the domain.
    #[error(
        "trust domain {0} is the mesh's own (or an alias of it) and also has a bundle of its own; remove one of the two"
    )]
    OwnAndForeign(TrustDomain),
}

impl TrustedDomains {
    /// Builds the set. An alias that repeats the own domain or another alias is harmless.
    ///
    /// # Errors
    /// When a domain is both of the mesh and foreign: then two bundles would apply to it.
    pub fn new(
        own: TrustDomain,
        aliases: impl IntoIterator<Item = TrustDomain>,
        foreign: impl IntoIterator<Item = TrustDomain>,
    ) -> Result<Self, TrustedDomainsError> {
        let aliases: BTreeSet<_> = aliases.into_iter().filter(|alias| *alias != own).collect();
        let foreign: BTreeSet<_> = foreign.into_iter().collect();
        match foreign.iter().find(|domain| **domain == own || aliases.contains(*domain)) {
            Some(domain) => Err(TrustedDomainsError::OwnAndForeign(domain.clone())),
            None => Ok(Self { own, aliases, foreign }),
        }
    }

    /// The mesh's own domain.
    #[must_use]
    pub const fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// The name under which the bundle for `domain` is kept: the own domain for itself and its aliases, the domain itself
    /// for a foreign one, `None` for a domain that is not trusted.
    #[must_use]
    pub fn bundle_for(&self, domain: &str) -> Option<&TrustDomain> {
        if self.own.as_str() == domain || self.aliases.contains(domain) {
            return Some(&self.own);
        }
        self.foreign.get(domain)
    }

    /// Whether the domain is the own one or an alias of it.
    #[must_use]
    pub fn is_mesh(&self, domain: &str) -> bool {
        self.own.as_str() == domain || self.aliases.contains(domain)
    }

    /// Every trusted domain: own, aliases, foreign.
    pub fn iter(&self) -> impl Iterator<Item = &TrustDomain> {
        std::iter::once(&self.own).chain(&self.aliases).chain(&self.foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn td(name: &str) -> TrustDomain {
        TrustDomain::parse(name).unwrap()
    }

    #[test]
    fn aliases_share_the_mesh_bundle_and_foreign_domains_have_their_own() {
        let domains = TrustedDomains::new(td("cluster.local"), [td("old.local")], [td("partner.test")]).unwrap();
        assert_eq!(domains.bundle_for("cluster.local"), Some(&td("cluster.local")));
        assert_eq!(domains.bundle_for("old.local"), Some(&td("cluster.local")));
        assert_eq!(domains.bundle_for("partner.test"), Some(&td("partner.test")));
        assert_eq!(domains.bundle_for("stranger.test"), None);
        assert_eq!(domains.bundle_for(""), None);
        assert!(domains.is_mesh("old.local") && !domains.is_mesh("partner.test"));
        assert_eq!(domains.iter().count(), 3);
    }

    #[test]
    fn an_id_of_the_longest_length_is_checked() {
        let class = |length: usize| {
            let text = format!("{SCHEME}{}", "a".repeat(length - SCHEME.len()));
            TrustDomain::parse(&text).unwrap_err().class()
        };
        assert_eq!((class(MAX_ID_LEN), class(MAX_ID_LEN + 1)), ("td-length", "length"));
        assert_eq!(format!("{:?}", td("old.local")), "TrustDomain(old.local)");
    }

    #[test]
    fn a_domain_with_two_bundles_is_an_error() {
        for twice in ["cluster.local", "old.local"] {
            let result = TrustedDomains::new(td("cluster.local"), [td("old.local")], [td(twice)]);
            assert_eq!(result, Err(TrustedDomainsError::OwnAndForeign(td(twice))));
        }
    }

    #[test]
    fn the_id_of_a_trust_domain_is_a_name_for_it_and_a_path_is_not() {
        assert_eq!(TrustDomain::parse("spiffe://example.org").unwrap().as_str(), "example.org");
        assert_eq!(TrustDomain::parse("example.org/x").unwrap_err().class(), "td-has-path");
        assert_eq!(TrustDomain::parse("spiffe://example.org/").unwrap_err().class(), "td-has-path");
        assert_eq!(TrustDomain::parse("spiffe://").unwrap_err().class(), "td-missing");
        assert_eq!(TrustDomain::parse(&"a".repeat(1 << 20)).unwrap_err().class(), "length");
    }
}
