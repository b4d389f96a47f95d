//! Why a certificate cannot be used: one error type for leaves and signers.

use crate::id_error::IdError;
use crate::key_type::ACCEPTED_KEYS;

/// Why a certificate is not an X.509-SVID, or may not sign for one.
///
/// `Display` explains it in terms of the certificate; [`SvidError::class`] is the stable name for programs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// The bytes are not one X.509 v3 certificate.
    #[error("not a certificate in DER: {0}")]
    Der(&'static str),
    /// The same extension twice (RFC 5280 4.2 forbids it; readers differ in which one they believe).
    #[error("extension {0} occurs more than once")]
    DuplicateExtension(String),
    /// A known extension that cannot be read.
    #[error("extension {0} is malformed")]
    Extension(String),
    /// A critical extension that is not understood here.
    #[error("extension {0} is critical and not understood")]
    CriticalExtension(String),
    /// No URI among the subject alternative names; common name, DNS names and mail addresses are never identities.
    #[error("there is no URI subject alternative name; an SVID has its SPIFFE ID there")]
    NoUriSan,
    /// More than one URI among the subject alternative names.
    #[error("there are {0} URI subject alternative names; an SVID has exactly one")]
    MultiUriSan(usize),
    /// The one URI is not a SPIFFE ID.
    #[error("the URI subject alternative name is not a SPIFFE ID: {0}")]
    Id(#[from] IdError),
    /// A leaf whose ID is that of the trust domain itself.
    #[error("the SPIFFE ID has no path, so it names the trust domain and no workload")]
    LeafNoPath,
    /// A signing certificate with the ID of a workload.
    #[error("a signing certificate's SPIFFE ID must not have a path")]
    SignerPath,
    /// What the certificate may be used for.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The public key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Key usage, extended key usage and basic constraints that don't fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A workload's certificate with cA true.
    #[error("basicConstraints says that this is a CA; a workload's certificate must not be one")]
    LeafCa,
    /// A workload's certificate that may sign certificates.
    #[error("keyUsage has keyCertSign; a workload must not sign certificates")]
    LeafCertSign,
    /// A workload's certificate that may sign revocation lists.
    #[error("keyUsage has cRLSign; a workload must not sign revocation lists")]
    LeafCrlSign,
    /// No key usage at all, or one without digitalSignature.
    #[error("keyUsage lacks digitalSignature")]
    NoDigitalSignature,
    /// Key usage is there and not critical.
    #[error("keyUsage is not critical; `tls.compat: [ku-critical]` admits certificates of such a CA")]
    KuNotCritical,
    /// Extended key usage is there and lacks one of the two that an SVID has.
    #[error(
        "extendedKeyUsage lacks serverAuth or clientAuth; `tls.compat: [eku]` admits a certificate that has the one needed"
    )]
    Eku,
    /// A signing certificate without cA true.
    #[error("the signing certificate is not a CA (basicConstraints cA is not true)")]
    NotCa,
    /// A signing certificate that may not sign.
    #[error("the signing certificate's keyUsage lacks keyCertSign")]
    NoCertSign,
}

/// Public keys that are too weak, or of a kind that is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// RSA with too few bits.
    #[error("the RSA key has {bits} bits; at least 2048 are needed")]
    Weak {
        /// The size of the modulus.
        bits: usize,
    },
    /// Anything that is not RSA 2048 to 8192, ECDSA P-256 or P-384, or Ed25519.
    #[error("the public key is of a kind that is not accepted; use {keys}", keys = ACCEPTED_KEYS)]
    Unsupported,
}

impl SvidError {
    /// The stable class of the error, for tests, metrics and JSON.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Der(_) => "der",
            Self::DuplicateExtension(_) => "duplicate-extension",
            Self::Extension(_) => "extension",
            Self::CriticalExtension(_) => "critical-ext",
            Self::NoUriSan => "no-uri-san",
            Self::MultiUriSan(_) => "multi-uri-san",
            Self::Id(error) => error.class(),
            Self::LeafNoPath => "leaf-no-path",
            Self::SignerPath => "signer-path",
            Self::Usage(error) => error.class(),
            Self::Key(error) => error.class(),
        }
    }
}

impl UsageError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::LeafCa => "leaf-ca",
            Self::LeafCertSign => "leaf-certsign",
            Self::LeafCrlSign => "leaf-crlsign",
            Self::NoDigitalSignature => "ku-digsig",
            Self::KuNotCritical => "ku-critical",
            Self::Eku => "eku",
            Self::NotCa => "not-ca",
            Self::NoCertSign => "signing-ku",
        }
    }
}

impl KeyError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::Weak { .. } => "weak-key",
            Self::Unsupported => "key-type",
        }
    }
}
