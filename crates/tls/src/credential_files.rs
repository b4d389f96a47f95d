//! The input of [`Credentials`](crate::Credentials): files in PEM, or certificates in DER.

use std::fmt;

use portcullis_identity::TrustDomain;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::credential_error::{CredentialError, FileRole};
use crate::pem;

/// The contents of the files, not yet parsed. The key is zeroed when this is dropped.
pub struct CredentialFiles {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
    trust_bundle: Vec<u8>,
    federated: Vec<(TrustDomain, Vec<u8>)>,
}

impl CredentialFiles {
    /// Takes the three files of a workload; `federated` are the bundles of foreign trust domains.
    #[must_use]
    pub fn new(
        certificate: Vec<u8>,
        private_key: Vec<u8>,
        trust_bundle: Vec<u8>,
        federated: Vec<(TrustDomain, Vec<u8>)>,
    ) -> Self {
        Self { certificate, private_key: Zeroizing::new(private_key), trust_bundle, federated }
    }
}

/// Credentials in DER, for sources other than files.
pub struct CredentialParts {
    /// The certificates as they are sent, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub private_key: Zeroizing<PrivateKeyDer<'static>>,
    /// The roots of the mesh's trust domain.
    pub trust_bundle: Vec<CertificateDer<'static>>,
    /// The roots of foreign trust domains.
    pub federated: Vec<(TrustDomain, Vec<CertificateDer<'static>>)>,
}

impl CredentialFiles {
    pub(crate) fn parse(&self) -> Result<CredentialParts, CredentialError> {
        let certificates = |role: FileRole, file: &[u8]| {
            // As a bundle's error, so that each file has one kind of error.
            pem::certificates(file).map_err(|error| CredentialError::Bundle { file: role, error: error.into() })
        };
        let trust_bundle = certificates(FileRole::TrustBundle, &self.trust_bundle)?;
        let mut federated = Vec::with_capacity(self.federated.len());
        for (domain, file) in &self.federated {
            federated.push((domain.clone(), certificates(FileRole::Federated(domain.clone()), file)?));
        }
        let chain = pem::certificates(&self.certificate)
            .map_err(|error| CredentialError::Pem { file: FileRole::Certificate, error })?;
        let private_key = pem::private_key(&self.private_key)
            .map_err(|error| CredentialError::Pem { file: FileRole::PrivateKey, error })?;
        Ok(CredentialParts { chain, private_key, trust_bundle, federated })
    }
}

impl fmt::Debug for CredentialParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialParts").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for CredentialFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialFiles").finish_non_exhaustive()
    }
}
