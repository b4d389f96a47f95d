//! All bundles of a workload, by trust domain. They are never merged.

use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_identity::leaf::Compat;
use portcullis_identity::{TrustDomain, TrustedDomains, TrustedDomainsError};

use crate::bundle::TrustBundle;

/// The bundles of the mesh and of foreign trust domains, and the relaxations for leaf certificates.
///
/// The own domain and its aliases share the mesh bundle, every other domain has its own, and a domain without one is not
/// trusted (SPIFFE Federation 4.2).
#[derive(Clone, Debug)]
pub struct TrustBundles {
    domains: TrustedDomains,
    /// Keyed by the names that `TrustedDomains::bundle_for` gives.
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    compat: Compat,
}

/// Why a set of bundles is inconsistent.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TrustError {
    /// Two bundles claim one domain.
    #[error(transparent)]
    Domains(#[from] TrustedDomainsError),
    /// A foreign domain is listed twice.
    #[error("trust domain {0} has two bundles; list it once")]
    DuplicateDomain(TrustDomain),
}

impl TrustBundles {
    /// Creates the set.
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
                return Err(TrustError::DuplicateDomain(domain));
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

    /// The relaxations for leaf certificates.
    #[must_use]
    pub const fn compat(&self) -> Compat {
        self.compat
    }

    /// The only bundle whose roots may sign for identities of this domain.
    #[must_use]
    pub fn bundle(&self, domain: &str) -> Option<&TrustBundle> {
        self.bundles.get(self.domains.bundle_for(domain)?).map(Arc::as_ref)
    }

    /// Every bundle with the name it is kept under.
    pub fn iter(&self) -> impl Iterator<Item = (&TrustDomain, &TrustBundle)> {
        self.bundles.iter().map(|(domain, bundle)| (domain, bundle.as_ref()))
    }
}
