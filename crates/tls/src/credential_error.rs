//! Errors and warnings about credentials. Each names the file and the remedy.

use std::fmt;

use portcullis_identity::{ACCEPTED_KEYS, SpiffeId, TrustDomain};

use crate::bundle::BundleError;
use crate::clock::utc;
use crate::pem::PemError;
use crate::trust::TrustError;
use crate::verify::VerifyError;

/// Which of the files an error is about, named as the configuration names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FileRole {
    /// `identity.files.certificate`
    Certificate,
    /// `identity.files.privateKey`
    PrivateKey,
    /// `identity.files.trustBundle`
    TrustBundle,
    /// One of `mesh.trustBundles`
    Federated(TrustDomain),
}

impl fmt::Display for FileRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("certificate"),
            Self::PrivateKey => f.write_str("privateKey"),
            Self::TrustBundle => f.write_str("trustBundle"),
            Self::Federated(domain) => write!(f, "trustBundles[{domain}]"),
        }
    }
}

/// Why credentials are not used. `Display` names the file, the problem and the remedy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CredentialError {
    /// A file is not the expected PEM.
    #[error("{file}: {error}")]
    Pem {
        /// Which one.
        file: FileRole,
        /// What is wrong.
        error: PemError,
    },
    /// A bundle has no usable roots.
    #[error("{file}: {error}")]
    Bundle {
        /// Which one.
        file: FileRole,
        /// What is wrong.
        error: BundleError,
    },
    /// The bundles contradict each other.
    #[error("trustBundles: {0}")]
    Trust(#[from] TrustError),
    /// Our own chain would be refused by a peer with our own bundle.
    #[error("certificate: {}; {advice}", .0, advice = chain_advice(.0))]
    Chain(VerifyError),
    /// The certificate has another identity.
    #[error(
        "certificate: it is for {found}, but this workload is {expected}; take the right certificate or correct `workload`"
    )]
    OwnId {
        /// The identity of this workload.
        expected: SpiffeId,
        /// The identity in the certificate.
        found: SpiffeId,
    },
    /// The key is not the certificate's.
    #[error("privateKey: it is not the key of the certificate; the two files must be from the same issuance")]
    KeyMismatch,
    /// The key cannot be used at all.
    #[error(
        "privateKey: it cannot be used ({0}); accepted are {keys}, as PKCS#8, SEC1 or PKCS#1",
        keys = ACCEPTED_KEYS
    )]
    Key(String),
    /// TLS cannot be set up. The files are not the cause.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl CredentialError {
    /// The stable class of the error, for tests, metrics and JSON.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Pem { error, .. } => error.class(),
            Self::Bundle { error, .. } => error.class(),
            Self::Trust(_) => "trust-domains",
            Self::Chain(error) => error.class(),
            Self::OwnId { .. } => "own-id",
            Self::KeyMismatch => "own-key",
            Self::Key(_) => "key",
            Self::Tls(_) => "tls",
        }
    }

    /// The file with the problem, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<FileRole> {
        match self {
            Self::Pem { file, .. } | Self::Bundle { file, .. } => Some(file.clone()),
            Self::Chain(_) | Self::OwnId { .. } => Some(FileRole::Certificate),
            Self::KeyMismatch | Self::Key(_) => Some(FileRole::PrivateKey),
            Self::Trust(_) | Self::Tls(_) => None,
        }
    }
}

fn chain_advice(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Expired { .. } => "ask the CA for a new certificate",
        VerifyError::NotYetValid { .. } => "the clock of this host or of the CA is wrong",
        _ => "ask the CA for a new certificate, and see that trustBundle is that CA's",
    }
}

/// A problem that does not prevent the use of credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CredentialWarning {
    /// A root that is not valid yet; it is not used before its time.
    RootNotYetValid {
        /// In which file.
        file: FileRole,
        /// Its first second, in Unix time.
        not_before_unix: i64,
    },
    /// Our certificate is valid for longer than the CAs above it.
    OutlivesPath {
        /// When the chain ends, in Unix time.
        path_ends_unix: i64,
    },
}

impl fmt::Display for CredentialWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RootNotYetValid { file, not_before_unix } => {
                write!(f, "{file}: a root is not valid before {} and is not used until then", utc(*not_before_unix))
            }
            Self::OutlivesPath { path_ends_unix } => write!(
                f,
                "certificate: a CA above it expires first, at {}; it is useless from then on",
                utc(*path_ends_unix)
            ),
        }
    }
}
