//! Authenticates callers by token or client certificate, at each request.

use std::net::SocketAddr;

use portcullis_ca::state::Store;
use portcullis_ca::{KeyHash, Token, TokenError, TokenKey};
use portcullis_identity::SpiffeId;
use portcullis_identity::leaf::Role;
use portcullis_tls::{Clock, TrustBundles, VerifyError};
use rustls_pki_types::CertificateDer;
use tonic::metadata::MetadataMap;

/// The other side of a connection, as it came out of the handshake.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Empty without a client certificate. TLS proved possession of the leaf's key; the chain is not verified yet.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// An authenticated caller.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) id: SpiffeId,
    pub(crate) method: AuthMethod,
    /// Its client certificate, if any, which identifies the instance.
    pub(crate) client_certificate: Option<ClientCertificate>,
}

/// A verified client certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientCertificate {
    pub(crate) key: KeyHash,
    pub(crate) not_after_unix: i64,
}

/// How the caller was authenticated.
#[derive(Debug)]
pub(crate) enum AuthMethod {
    /// A bootstrap token, which may not have been used before if it is for one certificate.
    Token(Token),
    /// The certificate that it has now.
    Svid,
}

impl AuthMethod {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Svid => "svid",
        }
    }
}

/// Why a caller is not authenticated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("neither a token nor a certificate was shown")]
    Nothing,
    #[error("the authorization is not one `Bearer TOKEN`")]
    Header,
    #[error("the token is refused: {0}")]
    Token(#[from] TokenError),
    #[error("the token was used before")]
    TokenUsed(SpiffeId),
    #[error("the certificate is refused: {0}")]
    Certificate(#[from] VerifyError),
    #[error("the token is for {token}, the certificate for {certificate}")]
    Two { token: SpiffeId, certificate: SpiffeId },
}

impl AuthError {
    pub(crate) const fn class(&self) -> &'static str {
        match self {
            Self::Nothing => "no-credentials",
            Self::Header => "authorization-header",
            Self::Token(error) => error.class(),
            Self::TokenUsed(_) => "token-used",
            Self::Certificate(error) => error.class(),
            Self::Two { .. } => "two-identities",
        }
    }

    /// The identity of the token or certificate, if it was verified.
    pub(crate) const fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::TokenUsed(id) | Self::Two { certificate: id, .. } => Some(id),
            _ => None,
        }
    }
}

/// Authenticates a caller. Every credential it presents must be valid: a token does not make up for a refused certificate.
pub(crate) fn authenticate(
    peer: &Peer,
    metadata: &MetadataMap,
    trust: &TrustBundles,
    tokens: &TokenKey,
    store: &Store,
    clock: &Clock,
) -> Result<Caller, AuthError> {
    let leaf = if peer.chain.is_empty() { None } else { Some(trust.verify(&peer.chain, Role::Client, clock.now())?.0) };
    let key = peer.chain.first().and_then(|leaf| KeyHash::of_certificate(leaf));
    let client_certificate =
        leaf.as_ref().zip(key).map(|(leaf, key)| ClientCertificate { key, not_after_unix: leaf.not_after_unix });
    let certificate = leaf.map(|leaf| leaf.id);
    let token = match bearer(metadata)? {
        Some(text) => Some(tokens.verify(text, clock.now_unix())?),
        None => None,
    };
    match (token, certificate) {
        (None, None) => Err(AuthError::Nothing),
        (None, Some(id)) => Ok(Caller { id, method: AuthMethod::Svid, client_certificate }),
        (Some(token), Some(certificate)) if token.id != certificate => {
            Err(AuthError::Two { token: token.id, certificate })
        }
        // The commit is authoritative; this check saves work. After a failed write the used tokens are unknown, so the
        // commit decides.
        (Some(token), _)
            if !token.reusable && store.is_used(token.number, token.expires_unix) && store.broken().is_none() =>
        {
            Err(AuthError::TokenUsed(token.id))
        }
        (Some(token), _) => Ok(Caller { id: token.id.clone(), method: AuthMethod::Token(token), client_certificate }),
    }
}

pub(crate) fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, AuthError> {
    let mut values = metadata.get_all("authorization").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().map_err(|_| AuthError::Header)?;
            // Istio's agents write `Bearer`; the scheme's case does not count (RFC 9110 11.1).
            let (scheme, token) = text.split_once(' ').ok_or(AuthError::Header)?;
            if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token)) } else { Err(AuthError::Header) }
        }
        (Some(_), Some(_)) => Err(AuthError::Header),
    }
}
