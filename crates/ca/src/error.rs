//! Errors of the issuing core.

use portcullis_identity::{ACCEPTED_KEYS, SpiffeId, TrustDomain};

/// Why a CA operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate file is not one certificate in PEM.
    #[error("the CA certificate cannot be read: it is not one PEM certificate")]
    Certificate,
    /// The certificate may not sign.
    #[error("the CA certificate is no CA: basicConstraints must say CA:TRUE and keyUsage keyCertSign")]
    NotCa,
    /// The certificate names no trust domain.
    #[error("the CA certificate names no trust domain: it needs one URI SAN such as spiffe://cluster.local")]
    NoTrustDomain,
    /// The key file is not a private key.
    #[error("the CA key cannot be read: {0}")]
    Key(rcgen::Error),
    /// The key type is not supported for signing.
    #[error("the CA key is of a kind that is not accepted; use {keys}", keys = ACCEPTED_KEYS)]
    KeyKind,
    /// A root is needed, and this is a CA below one.
    #[error("only a root may sign an intermediate, and this CA is one itself")]
    NotRoot,
    /// Key and certificate do not belong together.
    #[error("the CA key is not the key of the CA certificate")]
    KeyMismatch,
    /// The CA certificate has expired.
    #[error("the CA certificate has expired; make a new one")]
    Expired,
    /// The ID is of another trust domain.
    #[error("{id} does not belong to this CA's trust domain {trust_domain}")]
    ForeignId {
        /// The requested ID.
        id: SpiffeId,
        /// The CA's trust domain.
        trust_domain: TrustDomain,
    },
    /// A workload's ID has a path.
    #[error("{0} names a whole trust domain; a workload's ID has a path, such as /ns/NAMESPACE/sa/ACCOUNT")]
    NoPath(SpiffeId),
    /// The CA's own ID.
    #[error("{0} is the CA itself, and no workload's ID")]
    OwnId(SpiffeId),
    /// The trust domain's name is too long for an ID.
    #[error("trust domain {0} is too long to name the CA in it")]
    NoOwnId(TrustDomain),
    /// The lifetime is shorter than a minute.
    #[error("a certificate must live for a minute or more")]
    TooShort,
    /// The lifetime ends after the last date that there is.
    #[error("the lifetime ends after the last representable date")]
    TooLong,
    /// The library cannot make it.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the operating system's random generator failed")]
    Random,
}
