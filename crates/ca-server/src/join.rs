//! Another host joins with a token that the operator has made: it gets the roots, and a bootstrap token for each workload.
//!
//! The use of the token is on disk before the answer is sent, and so is a line of the audit for each identity. A caller that does not
//! know the secret learns nothing. One that does is the operator's, and is told what is wrong, since it must be corrected there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ca::JoinToken;
use portcullis_ca::state::{JoinError, JoinRefusal};
use portcullis_identity::SpiffeId;
use portcullis_net::admission::ClientSource;
use portcullis_rpc::bundles::join_server::Join;
use portcullis_rpc::bundles::{BootstrapToken, JoinRequest, JoinResponse, RenewTokenRequest};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::audit::Entry;
use crate::authenticate::{AuthError, AuthMethod, Peer, bearer};
use crate::service::{FAILURE_RATE, Rejection, Services, Shared, busy, peer_of, unavailable};

/// How long a bootstrap token of a joined host is good for its one certificate.
pub(crate) const HOST_TOKEN_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most identities of one host.
pub(crate) const MAX_IDS: usize = 256;

impl Services {
    async fn join(
        self: Arc<Self>,
        peer: Arc<Peer>,
        metadata: &MetadataMap,
        ids: &[String],
    ) -> Result<JoinResponse, Box<Rejection>> {
        let source = ClientSource::of(peer.address.ip());
        let _admitted = self.in_flight.try_acquire(&source).ok_or_else(busy)?;
        self.failures.has(&source, FAILURE_RATE, Instant::now()).map_err(|wait| {
            Rejection::too_many("too-many-failures", "too many failed attempts from this address", wait)
        })?;
        let token = self.join_token(metadata).inspect_err(|_| self.failed(source))?;
        let ids = asked(ids)?;
        let (services, from) = (Arc::clone(&self), Arc::clone(&peer));
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            services.redeem(&from, &token, ids)
        });
        let result = done.await.map_err(|error| unavailable("panic", error.to_string()))?;
        if self.store.broken().is_some() {
            self.state_failed.notify_one();
        }
        result.inspect_err(|rejection| {
            if rejection.code == Code::Unauthenticated {
                self.failed(source);
            }
        })
    }

    fn failed(&self, source: ClientSource) {
        self.metrics.authentication_failure.inc();
        // Count the failure even if the bucket is full.
        let _counted = self.failures.take(source, FAILURE_RATE, Instant::now());
    }

    fn join_token(&self, metadata: &MetadataMap) -> Result<JoinToken, Box<Rejection>> {
        let unauthenticated = |error: &AuthError| Rejection::unauthenticated(error.class(), error.to_string());
        let text = bearer(metadata).and_then(|text| text.ok_or(AuthError::Nothing));
        let text = text.map_err(|error| unauthenticated(&error))?;
        JoinToken::parse(text).map_err(|error| Rejection::unauthenticated("join-token-malformed", error.to_string()))
    }

    /// Takes a use of the token, and makes what it is for. Blocking; runs to its end even if the caller disconnects.
    fn redeem(&self, peer: &Peer, token: &JoinToken, asked: Vec<SpiffeId>) -> Result<JoinResponse, Box<Rejection>> {
        let now = self.state.clock.now_unix();
        let (number, secret) = (token.number(), token.secret_hash());
        let refused = |error: JoinError| rejection(&error);
        // Before a use is taken: what is wrong with the request must not cost one.
        let grant = self.store.check_join(number, &secret, &asked, now).map_err(refused)?;
        let ids = if asked.is_empty() { grant.ids } else { asked };
        let (ca, registrations) = (self.state.ca(), self.state.registrations.load_full());
        for id in &ids {
            let domain = ca.signer.trust_domain();
            if registrations.get(id).is_none() || id.domain_str() != domain.as_str() {
                let (message, detail) =
                    ("an identity is not registered", format!("{id} is not in identities.yaml any more"));
                return Err(Rejection::new(Code::FailedPrecondition, message, "not-registered", detail).of(id));
            }
        }
        self.store.join(number, &secret, &ids, now).map_err(refused)?;
        let key = self.state.tokens.load_full();
        let mut tokens = Vec::new();
        for id in &ids {
            let (text, made) = key
                .issue(id, HOST_TOKEN_TTL, false, now)
                .map_err(|error| unavailable("token", error.to_string()).of(id))?;
            let mut entry = Entry::new("joined", "Join", peer.address, now);
            entry.by = Some("join-token");
            entry.id = Some(id.to_string());
            entry.not_after = Some(portcullis_tls::utc(made.expires_unix));
            entry.detail = Some(format!("join token {number}"));
            self.audit.issued(&entry).map_err(|error| unavailable("audit", error.to_string()))?;
            tokens.push(BootstrapToken { id: id.to_string(), token: text, expires_unix: made.expires_unix });
        }
        tracing::info!(caller = %peer.address, token = %number, identities = ids.len(), "a host has joined");
        let (trust_domain, roots_pem) = (ca.signer.trust_domain().to_string(), ca.signer.roots_pem().to_owned());
        Ok(JoinResponse { trust_domain, roots_pem, tokens })
    }
}

impl Services {
    /// A bootstrap token for the next start of a caller that has a certificate now.
    async fn renew_token(
        self: Arc<Self>,
        peer: Arc<Peer>,
        metadata: &MetadataMap,
    ) -> Result<BootstrapToken, Box<Rejection>> {
        let _admitted = self.in_flight.try_acquire(&ClientSource::of(peer.address.ip())).ok_or_else(busy)?;
        let caller = self.authenticate(&peer, metadata, &self.state.ca())?;
        let registrations = self.state.registrations.load_full();
        self.registered(&caller, &registrations)?;
        if !matches!(caller.method, AuthMethod::Svid) {
            // Or one stolen token would do for ever.
            let detail = "a token was shown, and a new one is given for a certificate only";
            return Err(Rejection::unauthenticated("token-for-token", detail).of(&caller.id));
        }
        self.limit(&caller.id, registrations.limits)?;
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let (id, now) = (caller.id, self.state.clock.now_unix());
            let made = self.state.tokens.load().issue(&id, HOST_TOKEN_TTL, false, now);
            let (token, made) = made.map_err(|error| unavailable("token", error.to_string()).of(&id))?;
            let mut entry = Entry::new("token", "RenewToken", peer.address, now);
            entry.by = Some(caller.method.name());
            entry.id = Some(id.to_string());
            entry.not_after = Some(portcullis_tls::utc(made.expires_unix));
            self.audit.issued(&entry).map_err(|error| unavailable("audit", error.to_string()))?;
            Ok(BootstrapToken { id: id.to_string(), token, expires_unix: made.expires_unix })
        });
        done.await.map_err(|error| unavailable("panic", error.to_string()))?
    }
}

/// The identities of a request, each once.
fn asked(ids: &[String]) -> Result<Vec<SpiffeId>, Box<Rejection>> {
    let wrong =
        |detail: String| Rejection::new(Code::InvalidArgument, "the request is refused", "join-request", detail);
    if ids.len() > MAX_IDS {
        return Err(wrong(format!("{} identities; at most {MAX_IDS} are of one host", ids.len())));
    }
    let mut read: Vec<SpiffeId> = Vec::new();
    for text in ids {
        let id = SpiffeId::parse(text).map_err(|error| wrong(format!("what is asked for is no SPIFFE ID: {error}")))?;
        if !read.contains(&id) {
            read.push(id);
        }
    }
    Ok(read)
}

/// Whoever has the secret is told the reason.
fn rejection(error: &JoinError) -> Box<Rejection> {
    let detail = error.to_string();
    match error {
        JoinError::Broken(_) => unavailable("state", detail),
        JoinError::Refused(refusal @ JoinRefusal::Unknown) => Rejection::unauthenticated(refusal.class(), detail),
        JoinError::Refused(refusal) => {
            let message = match refusal {
                JoinRefusal::Expired => "the join token has expired",
                JoinRefusal::UsedUp => "the join token was used up",
                JoinRefusal::Revoked => "the join token was revoked",
                _ => "the join token is not for all of these identities",
            };
            let rejection = Rejection::new(Code::PermissionDenied, message, refusal.class(), detail);
            match refusal {
                JoinRefusal::Identity(id) => rejection.of(id),
                _ => rejection,
            }
        }
    }
}

#[tonic::async_trait]
impl Join for Shared {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let Self(services) = self;
        let peer = peer_of(&request)?;
        let (metadata, _, message) = request.into_parts();
        match Arc::clone(services).join(Arc::clone(&peer), &metadata, &message.ids).await {
            Ok(response) => Ok(Response::new(response)),
            Err(rejection) => Err(services.refuse("Join", &peer, &rejection)),
        }
    }

    async fn renew_token(&self, request: Request<RenewTokenRequest>) -> Result<Response<BootstrapToken>, Status> {
        let Self(services) = self;
        let peer = peer_of(&request)?;
        match Arc::clone(services).renew_token(Arc::clone(&peer), request.metadata()).await {
            Ok(token) => Ok(Response::new(token)),
            Err(rejection) => Err(services.refuse("RenewToken", &peer, &rejection)),
        }
    }
}
