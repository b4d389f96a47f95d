//! Validates an answer and builds credentials from it. No answer is used before it passes.

use portcullis_tls::{Clock, CredentialParts, Credentials, IdentityRules, TrustBundle};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::bundles::{Bundles, Foreign, MAX_ROOTS};
use crate::error::AnswerError;

/// A received chain and its key. Credentials are rebuilt from them when only bundles change.
pub(super) struct IssuedSvid {
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The roots that came with it.
    pub(super) offered: Vec<CertificateDer<'static>>,
    pub(super) key: Zeroizing<PrivateKeyDer<'static>>,
}

/// The source of the trusted roots.
pub(super) enum Roots {
    /// Handed out by the authority.
    HandedOut(Bundles),
    /// Roots of our own domain; those of foreign domains come from the configuration.
    Configured(Vec<CertificateDer<'static>>),
}

/// Validates credentials as peers will.
pub(super) struct Validator {
    pub(super) rules: IdentityRules,
    pub(super) clock: Clock,
    /// Bundles of foreign domains that the configuration names.
    pub(super) configured: watch::Receiver<Foreign>,
}

impl Validator {
    pub(super) fn validate(&self, issued: &IssuedSvid, roots: &Roots) -> Result<Credentials, AnswerError> {
        let configured = self.configured.borrow().clone();
        let (own, foreign) = match roots {
            Roots::HandedOut(bundles) => (bundles.own.clone(), bundles.foreign_with(&configured)),
            Roots::Configured(own) => (own.clone(), configured),
        };
        let mut chain = issued.chain.clone();
        // Peers already have the roots that they trust.
        while chain.len() > 1 && chain.last().is_some_and(|last| own.contains(last)) {
            chain.pop();
        }
        let private_key = Zeroizing::new(issued.key.clone_key());
        let parts = CredentialParts { chain, private_key, trust_bundle: own, federated: foreign };
        Ok(Credentials::validate_parts(parts, &self.rules, &self.clock)?)
    }

    /// The roots of the file, those that the authority put at the end of its answer, and the last certificate of a chain if it
    /// is one that could be a root.
    pub(super) fn configured(
        &self,
        file: &[CertificateDer<'static>],
        issued: &IssuedSvid,
    ) -> Vec<CertificateDer<'static>> {
        let last = issued.chain.last().filter(|last| issued.chain.len() > 1 && self.could_be_root(last));
        let beyond = issued.offered.iter().chain(last).filter(|root| !file.contains(root));
        file.iter().chain(beyond).cloned().collect()
    }

    /// The last of several texts holds roots, and is no part of the chain then.
    pub(super) fn are_roots(&self, texts: usize, last: &[CertificateDer<'static>]) -> bool {
        texts > 1 && last.len() <= MAX_ROOTS && last.iter().all(|der| self.could_be_root(der))
    }

    fn could_be_root(&self, der: &CertificateDer<'static>) -> bool {
        let self_issued = portcullis_identity::summary(der).is_ok_and(|facts| facts.self_issued);
        self_issued && TrustBundle::from_der(vec![der.clone()], self.clock.now_unix()).is_ok()
    }
}
