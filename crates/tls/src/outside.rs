//! Certificates of the world outside of the mesh: what is common to calling an external service and to serving outsiders.
//!
//! They are checked by webpki, as a browser's are: chain, signatures, time, usage, name. There is no SPIFFE ID in them.

use std::sync::Arc;

use portcullis_identity::ACCEPTED_KEYS;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::UnixTime;

use crate::clock::utc;
use crate::pem::{self, PemError};
use crate::provider::provider;
use crate::verify::unix;

/// Why a certificate of the outside world was not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OutsideRefusal {
    /// Its chain leads to no root that is trusted for this.
    #[error("its chain leads to none of the trusted roots; its issuer may be another, or an intermediate is missing")]
    UnknownIssuer,
    /// A certificate of the chain has expired.
    #[error("a certificate of the chain was valid until {}, it is {}", utc(*until), utc(*now))]
    Expired {
        /// Its last second, in Unix time.
        until: i64,
        /// The time of the verification.
        now: i64,
    },
    /// A certificate of the chain is not valid yet.
    #[error("a certificate of the chain is valid from {}, it is {}; check both clocks", utc(*from), utc(*now))]
    NotYetValid {
        /// Its first second, in Unix time.
        from: i64,
        /// The time of the verification.
        now: i64,
    },
    /// It is valid, but for other names than the expected one.
    #[error("it is for {presented}, expected was {expected}")]
    Name {
        /// What was expected.
        expected: String,
        /// The names of the certificate.
        presented: String,
    },
    /// Its key usage does not allow this side of a connection.
    #[error("its extended key usage does not allow this use")]
    Purpose,
    /// A signature is wrong, or of an algorithm that is not accepted.
    #[error("a signature is wrong, or made with an algorithm that is not accepted (SHA-1, a short RSA key)")]
    Signature,
    /// Anything else.
    #[error("{0}")]
    Malformed(String),
}

impl OutsideRefusal {
    /// The stable class.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown-issuer",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::Name { .. } => "server-name",
            Self::Purpose => "usage",
            Self::Signature => "bad-signature",
            Self::Malformed(_) => "der",
        }
    }

    /// Reads rustls' error, whose alert the peer has got.
    pub(crate) fn of(error: &CertificateError) -> Self {
        let time = |time: &UnixTime| unix(*time);
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::ExpiredContext { time: now, not_after } => {
                Self::Expired { until: time(not_after), now: time(now) }
            }
            CertificateError::NotValidYetContext { time: now, not_before } => {
                Self::NotYetValid { from: time(not_before), now: time(now) }
            }
            CertificateError::NotValidForNameContext { expected, presented } => {
                Self::Name { expected: expected.to_str().into_owned(), presented: listed(presented) }
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Self::Purpose,
            CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => Self::Signature,
            // A verifier of ours that has more to say.
            CertificateError::Other(other) => match other.0.downcast_ref::<Self>() {
                Some(refusal) => refusal.clone(),
                None => Self::Malformed(format!("a certificate of the chain cannot be used: {other}")),
            },
            other => Self::Malformed(format!("a certificate of the chain cannot be used: {other}")),
        }
    }
}

/// A list for a message. The names come from a certificate that nobody vouches for yet, so they are cleaned and bounded.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    if names.is_empty() {
        return "no name".to_owned();
    }
    let clean = |name: &String| name.chars().take(100).map(|char| if char.is_control() { '?' } else { char }).collect();
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(clean).collect();
    if let Some(more) = names.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

/// Why roots cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RootsError {
    /// The file is not a list of certificates in PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// One of its certificates cannot be a root.
    #[error("certificate {number} cannot be used as a root: {why}")]
    Unusable {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        why: String,
    },
    /// None of the system's certificates can be a root.
    #[error("none of its {count} certificates can be used as a root")]
    None {
        /// How many there are.
        count: usize,
    },
}

/// Roots that somebody chose: each must be usable.
pub(crate) fn chosen_roots(file: &[u8]) -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    for (index, der) in pem::certificates(file)?.into_iter().enumerate() {
        let unusable =
            |why: rustls::Error| RootsError::Unusable { number: index.saturating_add(1), why: why.to_string() };
        store.add(der).map_err(unusable)?;
    }
    Ok(store)
}

/// The system's roots: one that is too old to be read is not the fault of whoever uses the others.
pub(crate) fn system_roots(file: &[u8]) -> Result<RootCertStore, RootsError> {
    let mut store = RootCertStore::empty();
    let (added, ignored) = store.add_parsable_certificates(pem::certificates(file)?);
    if added == 0 {
        return Err(RootsError::None { count: ignored });
    }
    Ok(store)
}

/// Why a certificate and its key cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyPairError {
    /// The certificate's file is not what it should be.
    #[error("certificate: {0}")]
    Certificate(PemError),
    /// The key's file is not what it should be.
    #[error("privateKey: {0}")]
    PrivateKey(PemError),
    /// The key cannot be used at all.
    #[error(
        "privateKey: it cannot be used ({0}); accepted are {keys}",
        keys = ACCEPTED_KEYS
    )]
    Key(String),
    /// The key is not the certificate's.
    #[error("privateKey: it is not the key of the certificate; the two files must be from the same issuance")]
    Mismatch,
}

impl KeyPairError {
    /// The stable class.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Certificate(error) | Self::PrivateKey(error) => error.class(),
            Self::Key(_) => "key",
            Self::Mismatch => "own-key",
        }
    }
}

/// Reads a chain (leaf first) and its key, and checks that they belong together.
pub(crate) fn key_pair(chain: &[u8], key: &[u8]) -> Result<(Arc<SingleCertAndKey>, Arc<CertifiedKey>), KeyPairError> {
    let chain = pem::certificates(chain).map_err(KeyPairError::Certificate)?;
    let der = pem::private_key(key).map_err(KeyPairError::PrivateKey)?;
    let key = provider().key_provider.load_private_key(der.clone_key());
    let key = CertifiedKey::new(chain, key.map_err(|error| KeyPairError::Key(error.to_string()))?);
    // Also refused when rustls cannot determine it.
    key.keys_match().map_err(|_| KeyPairError::Mismatch)?;
    Ok((Arc::new(SingleCertAndKey::from(key.clone())), Arc::new(key)))
}
