//! Who the server is, by the certificates that it presented.

use portcullis_identity::leaf::{self, Role};
use portcullis_identity::{SpiffeId, SvidError};
use portcullis_tls::{TrustBundles, VerifyError};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificates::RELAXED;

/// What is asked of the server.
#[derive(Debug)]
pub struct ServerCheck<'a> {
    /// The identity that it must have; `None`: any.
    pub identity: Option<&'a SpiffeId>,
    /// The roots that its chain must lead to; `None`: it is not verified.
    pub trust: Option<&'a TrustBundles>,
    /// When.
    pub now: UnixTime,
}

/// What the server is.
#[derive(Debug)]
pub enum ServerOutcome {
    /// Who was asked for; the chain was verified if there are roots.
    Expected {
        /// Its identity.
        id: SpiffeId,
        /// Whether its chain was verified.
        verified: bool,
    },
    /// Another workload.
    Other(SpiffeId),
    /// Its certificate has no identity.
    NoIdentity(SvidError),
    /// Its chain is not accepted.
    Untrusted(VerifyError),
    /// It presented none.
    NoCertificate,
}

/// Checks the chain of the server.
#[must_use]
pub fn check_server(chain: &[CertificateDer<'_>], check: &ServerCheck<'_>) -> ServerOutcome {
    let Some(first) = chain.first() else { return ServerOutcome::NoCertificate };
    let id = match leaf::check(first, RELAXED, Role::Server) {
        Ok(leaf) => leaf.id,
        Err(error) => return ServerOutcome::NoIdentity(error),
    };
    if let Some(Err(error)) = check.trust.map(|trust| trust.verify(chain, Role::Server, check.now)) {
        return ServerOutcome::Untrusted(error);
    }
    match check.identity {
        Some(wanted) if *wanted != id => ServerOutcome::Other(id),
        _ => ServerOutcome::Expected { id, verified: check.trust.is_some() },
    }
}
