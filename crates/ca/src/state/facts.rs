//! The inputs and outputs of the state.

use std::collections::BTreeMap;

use portcullis_identity::SpiffeId;

use crate::csr::KeyHash;
use crate::token::TokenNumber;

/// A certificate that is about to be handed out.
#[derive(Clone, Debug)]
pub struct Issuance {
    /// The identity.
    pub id: SpiffeId,
    /// The certified key.
    pub key: KeyHash,
    /// The key of the client certificate of the request. The new certificate belongs to the same instance.
    pub previous: Option<KeyHash>,
    /// The digest of the trust bundles that the caller reports.
    pub bundle_digest: Option<String>,
    /// Its serial number in hexadecimal.
    pub serial: String,
    /// Its last second, in Unix time.
    pub not_after_unix: i64,
    /// The root that it leads to: see [`crate::Signer::anchor`].
    pub anchor: String,
    /// The single-use token that it was asked for with, and when that ends.
    pub token: Option<UsedToken>,
}

/// A single-use token that an issuance uses up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UsedToken {
    /// Its number.
    pub number: TokenNumber,
    /// When it expires, in Unix time.
    pub expires_unix: i64,
}

/// Why a certificate is not handed out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IssuanceRefusal {
    /// The token was used.
    #[error("the token was used before")]
    TokenUsed,
    /// Another identity holds the key.
    #[error("the key is held by {0}")]
    KeyHeld(SpiffeId),
}

/// An instance's report of the trust bundles that it uses.
#[derive(Clone, Debug)]
pub struct Report {
    /// The identity.
    pub id: SpiffeId,
    /// The key of the certificate that it showed,
    pub key: KeyHash,
    /// and that certificate's last second, in Unix time.
    pub not_after_unix: i64,
    /// The digest.
    pub digest: String,
    /// When the current bundles were published; earlier reports do not count.
    pub since_unix: i64,
    /// Its live connections by the root that the peer's chain ends at; `None` from a caller that does not report them.
    pub connections: Option<BTreeMap<String, u64>>,
}

/// The recorded state of one identity.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// Last second of the certificate that lasts longest, in Unix time; 0 if it never had one.
    pub not_after_unix: i64,
    /// Last second of the certificate that lasts longest, for each root that any leads to. Certificates from before
    /// roots were recorded count below the root with the empty name.
    pub below: BTreeMap<String, i64>,
}
