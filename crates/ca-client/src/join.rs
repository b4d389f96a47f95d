//! Joins an authority with a join token: gets its roots, and a bootstrap token for each workload of this host.
//!
//! All that is known of the authority is the SHA-256 of its root. The handshake compares it, so whoever stands between sees a
//! ClientHello and can end the connection. The secret follows after the handshake, over the verified connection.

use std::io;

use portcullis_config::HostPort;
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_rpc::bundles::join_client::JoinClient;
use portcullis_rpc::bundles::{JoinRequest, JoinResponse};
use portcullis_tls::{Clock, TrustBundle, ca_channel, sha256};
use rustls::CertificateError;
use tonic::Request;
use tonic::codegen::http::Uri;
use zeroize::Zeroizing;

use crate::ca::call::{CALL_TIMEOUT, bearer, server_name};
use crate::channel::{Channel, within};
use crate::error::{FetchError, clean};

/// Roots and tokens of 256 workloads are less, in bytes.
const MAX_ANSWER_LEN: usize = 1024 * 1024;

/// What a host joins with.
pub struct Joining<'a> {
    /// The authority.
    pub address: &'a HostPort,
    /// The name in its certificate.
    pub server_name: &'a str,
    /// The SHA-256 of the root certificate that it must show.
    pub root_sha256: [u8; 32],
    /// The join token: sent only to a server that has shown the root.
    pub token: &'a str,
    /// The workloads of this host; all that the token is for if there are none.
    pub ids: &'a [SpiffeId],
}

impl std::fmt::Debug for Joining<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joining").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What a host got.
pub struct Joined {
    /// The trust domain of the authority.
    pub trust_domain: TrustDomain,
    /// Its roots in PEM: validated, and the pinned one is among them.
    pub roots_pem: String,
    /// A bootstrap token for each workload.
    pub tokens: Vec<JoinedWorkload>,
}

impl std::fmt::Debug for Joined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Joined").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The token of one workload.
pub struct JoinedWorkload {
    /// Its identity.
    pub id: SpiffeId,
    /// A secret, for one certificate.
    pub token: Zeroizing<String>,
    /// Its last second, in Unix time.
    pub expires_unix: i64,
}

impl std::fmt::Debug for JoinedWorkload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinedWorkload").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a host has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server does not show the root that the token names.
    #[error(
        "{address} does not show the root certificate that the join token names (SHA-256 {expected}), so nothing was sent to it. \
         Either the address leads to another CA, or somebody answers in its place, or its root was rotated since the token was made; \
         see the address, and make another token with `portcullis ca join-token create`"
    )]
    Root {
        /// Who was dialled.
        address: String,
        /// What it should have shown.
        expected: String,
    },
    /// The root is right, and the certificate is of another name.
    #[error(
        "{address} shows the right root, but its certificate is not valid for {name}: start `portcullis ca run` with --name {name}, \
         or say here with --server-name which of its names is right"
    )]
    Name {
        /// Who was dialled.
        address: String,
        /// The name that was expected.
        name: String,
    },
    /// No answer that could be used.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer is not what was asked for.
    #[error("the answer of the CA is not used: {0}")]
    Answer(String),
}

impl JoinError {
    /// Whether the authority has refused the token.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Refused { .. }))
    }

    /// Whether another attempt may succeed without any change.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Connect(_) | FetchError::Deadline { .. } | FetchError::Connection(_)))
    }
}

/// Joins, once: the use of the token is not given back.
///
/// # Errors
/// If the authority is not the one that the token names, refuses, or does not answer.
pub async fn join(joining: &Joining<'_>, clock: &Clock) -> Result<Joined, JoinError> {
    let Joining { address, server_name: name, root_sha256, token, ids } = joining;
    let local = |message: String| FetchError::Local { reason: "join", message, missing: false };
    let expected = || root_sha256.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let server = server_name(name).ok_or_else(|| local(format!("{name} is not a valid TLS server name")))?;
    let config = ca_channel::pinned_client_config(*root_sha256, clock).map_err(|error| local(error.to_string()))?;
    let bearer = bearer(token).ok_or_else(|| local("the join token has characters that no token has".to_owned()))?;
    let origin: Uri = format!("https://{address}").parse().map_err(|error| local(format!("{address}: {error}")))?;
    let handshake = |error: &io::Error| FetchError::Tls(clean(&error.to_string()));
    let fault = std::sync::Mutex::new(None);
    let channel = Channel::connect(address, server, config, |error| {
        if let Ok(mut fault) = fault.lock() {
            *fault = certificate_fault(error);
        }
        handshake(error)
    })
    .await;
    let channel = channel.map_err(|error| match fault.lock().ok().and_then(|mut fault| fault.take()) {
        Some(CertificateError::UnknownIssuer) => JoinError::Root { address: address.to_string(), expected: expected() },
        Some(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            JoinError::Name { address: address.to_string(), name: (*name).to_owned() }
        }
        _ => error.into(),
    })?;
    let mut request = Request::new(JoinRequest { ids: ids.iter().map(ToString::to_string).collect() });
    request.metadata_mut().insert("authorization", bearer);
    let mut client = JoinClient::with_origin(channel, origin).max_decoding_message_size(MAX_ANSWER_LEN);
    let answer = within(CALL_TIMEOUT, "Join", async {
        client.join(request).await.map_err(|status| FetchError::from_status(&status))
    });
    checked(answer.await?.into_inner(), joining, clock)
}

fn certificate_fault(error: &io::Error) -> Option<CertificateError> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(fault) => Some(fault.clone()),
        _ => None,
    }
}

/// The CA is the right one. What it says must still make sense here, since it names folders and is trusted from now on.
fn checked(answer: JoinResponse, joining: &Joining<'_>, clock: &Clock) -> Result<Joined, JoinError> {
    let wrong = |what: String| JoinError::Answer(what);
    let trust_domain = TrustDomain::parse(&answer.trust_domain)
        .map_err(|error| wrong(format!("{} is no trust domain: {error}", clean(&answer.trust_domain))))?;
    let roots = TrustBundle::from_pem(answer.roots_pem.as_bytes(), clock.now_unix())
        .map_err(|error| wrong(format!("its roots: {error}")))?;
    if !roots.roots().any(|root| sha256(root.der()) == joining.root_sha256) {
        return Err(wrong("the root that the token names is not among its roots".to_owned()));
    }
    let mut tokens: Vec<JoinedWorkload> = Vec::new();
    for one in answer.tokens {
        let token = Zeroizing::new(one.token);
        let id = SpiffeId::parse(&one.id).map_err(|error| wrong(format!("{}: {error}", clean(&one.id))))?;
        let is_wanted = joining.ids.is_empty() || joining.ids.contains(&id);
        if !is_wanted || id.trust_domain() != trust_domain || tokens.iter().any(|known| known.id == id) {
            return Err(wrong(format!("a token for {id}, which was not asked for")));
        }
        tokens.push(JoinedWorkload { id, token, expires_unix: one.expires_unix });
    }
    match joining.ids.iter().find(|id| !tokens.iter().any(|known| known.id == **id)) {
        Some(missing) => Err(wrong(format!("it has no token for {missing}"))),
        None if tokens.is_empty() => Err(wrong("it has no token".to_owned())),
        None => Ok(Joined { trust_domain, roots_pem: answer.roots_pem, tokens }),
    }
}
