//! All bundles of a workload, by trust domain; never one pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_identity::leaf::{Compat, Leaf, Role};
use portcullis_identity::{TrustDomain, TrustedDomains, TrustedDomainsError};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::TrustBundle;
use crate::verify::{PathSummary, VerifyError, verify};

/// The bundles of the mesh and of foreign trust domains, and how strictly leaves are judged.
///
/// The own domain and its aliases share the mesh bundle, any other domain has its own, and a domain without one is trusted
/// by nobody (SPIFFE Federation 4.2).
#[derive(Clone, Debug)]
pub struct TrustBundles {
    domains: TrustedDomains,
    /// Keyed by the names that `TrustedDomains::bundle_for` gives.
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    compat: Compat,
}

/// Why a set of bundles makes no sense.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// Two bundles claim one domain.
    #[error(transparent)]
    Domains(#[from] TrustedDomainsError),
    /// A foreign domain is listed twice.
    #[error("trust domain {0} has two bundles; list it once")]
    Twice(TrustDomain),
}

impl TrustBundles {
    /// Puts the set together.
    ///
    /// # Errors
    /// When a domain would have two bundles.
    pub fn new(
        own: TrustDomain,
        aliases: impl IntoIterator<Item = TrustDomain>,
        mesh: TrustBundle,
        foreign: impl IntoIterator<Item = (TrustDomain, TrustBundle)>,
        compat: Compat,
    ) -> Result<Self, TrustError> {
        let mut bundles = BTreeMap::new();
        for (domain, bundle) in foreign {
            if bundles.insert(domain.clone(), Arc::new(bundle)).is_some() {
                return Err(TrustError::Twice(domain));
            }
        }
        let domains = TrustedDomains::new(own, aliases, bundles.keys().cloned())?;
        bundles.insert(domains.own().clone(), Arc::new(mesh));
        Ok(Self { domains, bundles, compat })
    }

    /// Which domains are trusted.
    #[must_use]
    pub const fn domains(&self) -> &TrustedDomains {
        &self.domains
    }

    /// How strictly leaves are judged.
    #[must_use]
    pub const fn compat(&self) -> Compat {
        self.compat
    }

    /// The only bundle that may vouch for an identity of this domain.
    #[must_use]
    pub fn bundle(&self, domain: &str) -> Option<&TrustBundle> {
        self.bundles.get(self.domains.bundle_for(domain)?).map(Arc::as_ref)
    }

    /// Judges a chain (leaf first) as a peer in this role at this time, exactly as a handshake does, but for the proof that
    /// the peer holds the key.
    ///
    /// # Errors
    /// Why it makes no peer.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(Leaf, PathSummary), VerifyError> {
        let (end_entity, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        verify(self, end_entity, intermediates, role, now).map(|verified| (verified.leaf, verified.path))
    }

    /// Every bundle with the name it is kept under.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &TrustBundle)> {
        self.bundles.iter().map(|(domain, bundle)| (domain, bundle.as_ref()))
    }
}
