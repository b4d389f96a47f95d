//! Issues a certificate for an authenticated caller. Blocking; runs to its end even if the caller disconnects.

use std::sync::Arc;

use portcullis_ca::state::{CommitError, Issuance, IssuanceRefusal, Store, UsedToken};
use portcullis_ca::{CaError, CertifiedPublicKey};
use portcullis_tls::utc;

use crate::audit::{Audit, Entry};
use crate::authenticate::{AuthMethod, Caller};
use crate::ca_state::CaState;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    #[error("{0}")]
    Refused(IssuanceRefusal),
    #[error("{0}")]
    State(CommitError),
    #[error("{0}")]
    Sign(#[from] CaError),
    #[error("the audit file cannot be written: {0}")]
    Audit(std::io::Error),
}

/// The input for one certificate.
pub(crate) struct IssueRequest {
    pub(crate) state: Arc<CaState>,
    pub(crate) store: Arc<Store>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) caller: Caller,
    pub(crate) key: CertifiedPublicKey,
    pub(crate) ttl: std::time::Duration,
    /// The digest of the bundles that the caller reports.
    pub(crate) bundle_digest: Option<String>,
    pub(crate) entry: Entry,
}

/// Signs, commits to the state, writes the audit, and only then returns the chain: the leaf, its intermediates, and the
/// roots as one text, as Istio's agents expect it.
pub(crate) fn issue(work: IssueRequest) -> Result<Vec<String>, IssueError> {
    let IssueRequest { state, store, audit, caller, key, ttl, bundle_digest, mut entry } = work;
    // Until the leaf is recorded, no rotation may conclude that its root has no certificates and remove it.
    let _signing = state.signing();
    let ca = state.ca();
    let leaf = ca.signer.sign(&caller.id, ttl, &key)?;
    let token = match &caller.method {
        AuthMethod::Token(token) if !token.reusable => {
            Some(UsedToken { number: token.number, expires_unix: token.expires_unix })
        }
        AuthMethod::Token(_) | AuthMethod::Svid => None,
    };
    let issuance = Issuance {
        id: caller.id.clone(),
        key: key.hash(),
        previous: caller.client_certificate.map(|client_certificate| client_certificate.key),
        bundle_digest,
        serial: leaf.serial_text(),
        not_after_unix: leaf.not_after_unix,
        anchor: ca.signer.anchor().to_owned(),
        token,
    };
    store.commit(&issuance, state.clock.now_unix()).map_err(|error| match error {
        CommitError::Refused(refusal) => IssueError::Refused(refusal),
        broken @ CommitError::Broken(_) => IssueError::State(broken),
    })?;
    entry.by = Some(caller.method.name());
    entry.id = Some(caller.id.to_string());
    entry.serial = Some(issuance.serial);
    entry.not_after = Some(utc(leaf.not_after_unix));
    entry.key_sha256 = Some(issuance.key.to_string());
    entry.key_type = Some(key.kind().name());
    audit.issued(&entry).map_err(IssueError::Audit)?;
    let mut chain = vec![leaf.pem()];
    chain.extend(ca.signer.issuer_chain_pem().iter().cloned());
    chain.push(state.roots_pem(&ca));
    Ok(chain)
}
