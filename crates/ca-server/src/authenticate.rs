//! Who a caller is: told by a token or by its certificate, judged anew at each request.

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
    /// Empty if it has shown none. It holds the key of the first; nothing else is known of it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

/// A caller whose identity is proved.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) id: SpiffeId,
    pub(crate) method: AuthMethod,
    /// The certificate that it has shown, if any: which of the identity's instances it is.
    pub(crate) client_certificate: Option<ClientCertificate>,
}

/// What is remembered of a certificate that a caller has shown, and that was found good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientCertificate {
    pub(crate) key: KeyHash,
    pub(crate) not_after_unix: i64,
}

/// What it was proved with.
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

/// Why a caller is nobody.
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

    /// Whose token or certificate it is, where that is beyond doubt.
    pub(crate) const fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::TokenUsed(id) | Self::Two { certificate: id, .. } => Some(id),
            _ => None,
        }
    }
}

/// Judges what a caller has shown. Whatever it shows must be good: a certificate that is refused is not made up for by a
/// token.
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
        // Authoritative is the commit; here it saves the work. After a failed write it is not known which tokens were used,
        // and the commit answers that.
        (Some(token), _)
            if !token.reusable && store.is_used(token.number, token.expires_unix) && store.broken().is_none() =>
        {
            Err(AuthError::TokenUsed(token.id))
        }
        (Some(token), _) => Ok(Caller { id: token.id.clone(), method: AuthMethod::Token(token), client_certificate }),
    }
}

fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, AuthError> {
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
