//! The two gRPC services and their admission, authentication and limits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_ca::state::{IssuanceRefusal, Store};
use portcullis_ca::{CertifiedPublicKey, KeyHash, Limits, Registration, Registrations, Token};
use portcullis_identity::SpiffeId;
use portcullis_net::admission::{ClientSource, KeyedLimit};
use portcullis_rpc::bundles::trust_bundles_server::TrustBundles;
use portcullis_rpc::bundles::{GetTrustBundlesRequest, GetTrustBundlesResponse, TrustBundle};
use portcullis_rpc::istio::istio_certificate_service_server::IstioCertificateService;
use portcullis_rpc::istio::{IstioCertificateRequest, IstioCertificateResponse};
use tokio::sync::{Notify, Semaphore, watch};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request, Response, Status};

use crate::audit::{Audit, Entry};
use crate::authenticate::{self, AuthMethod, Caller, Peer};
use crate::ca_state::{Ca, CaState};
use crate::issue::{self, IssueError, IssueRequest};
use crate::limits::{Buckets, Rate};
use crate::metrics::Metrics;
use crate::report;

/// The most requests in flight; further ones are refused with `retry-after`.
const MAX_IN_FLIGHT: usize = 256;
/// How many of them sign and wait for the disk at once.
const MAX_WORKERS: usize = 32;
/// The rate of failed authentications of one source. Beyond it requests are refused unverified, since verifying is expensive.
pub(crate) const FAILURE_RATE: Rate = Rate { burst: 60, every: Duration::from_millis(200) };

/// How often one identity may ask for bundles.
const BUNDLE_RATE: Rate = Rate { burst: 60, every: Duration::from_secs(1) };

/// The state shared by both services.
pub(crate) struct Services {
    pub(crate) dir: PathBuf,
    pub(crate) state: Arc<CaState>,
    pub(crate) store: Arc<Store>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: Arc<KeyedLimit<ClientSource>>,
    pub(crate) workers: Arc<Semaphore>,
    identities: Buckets<SpiffeId>,
    all: Buckets<()>,
    pub(crate) failures: Buckets<ClientSource>,
    bundle_requests: Buckets<SpiffeId>,
    /// Counts used single-use tokens, for the bootstrap folder.
    used: watch::Sender<u64>,
    /// The state could not be written.
    pub(crate) state_failed: Arc<Notify>,
}

/// A refusal: the answer to the caller, and the details for the audit.
pub(crate) struct Rejection {
    pub(crate) code: Code,
    message: &'static str,
    class: &'static str,
    detail: String,
    id: Option<SpiffeId>,
    key: Option<KeyHash>,
    wait: Option<Duration>,
}

impl Rejection {
    pub(crate) fn new(code: Code, message: &'static str, class: &'static str, detail: impl Into<String>) -> Box<Self> {
        Box::new(Self { code, message, class, detail: detail.into(), id: None, key: None, wait: None })
    }

    pub(crate) fn unauthenticated(class: &'static str, detail: impl Into<String>) -> Box<Self> {
        Self::new(Code::Unauthenticated, "not authenticated; the log of the CA says why", class, detail)
    }

    pub(crate) fn too_many(class: &'static str, detail: &str, wait: Duration) -> Box<Self> {
        let message = "too many requests; try again after `retry-after` seconds";
        let mut rejection = Self::new(Code::ResourceExhausted, message, class, detail);
        rejection.wait = Some(wait);
        rejection
    }

    pub(crate) fn of(mut self: Box<Self>, id: &SpiffeId) -> Box<Self> {
        self.id = Some(id.clone());
        self
    }
}

impl Services {
    pub(crate) fn new(
        dir: PathBuf,
        state: Arc<CaState>,
        store: Arc<Store>,
        audit: Arc<Audit>,
        metrics: Metrics,
    ) -> Self {
        Self {
            dir,
            state,
            store,
            audit,
            metrics,
            in_flight: KeyedLimit::shared(MAX_IN_FLIGHT),
            workers: Arc::new(Semaphore::new(MAX_WORKERS)),
            identities: Buckets::new(),
            all: Buckets::new(),
            failures: Buckets::new(),
            bundle_requests: Buckets::new(),
            used: watch::Sender::new(0),
            state_failed: Arc::default(),
        }
    }

    /// Notifies when a single-use token was used.
    pub(crate) fn used(&self) -> watch::Receiver<u64> {
        self.used.subscribe()
    }

    pub(crate) fn is_used(&self, token: &Token) -> bool {
        self.store.is_used(token.number, token.expires_unix)
    }

    pub(crate) fn authenticate(&self, peer: &Peer, metadata: &MetadataMap, ca: &Ca) -> Result<Caller, Box<Rejection>> {
        let (from, now) = (ClientSource::of(peer.address.ip()), Instant::now());
        self.failures.has(&from, FAILURE_RATE, now).map_err(|wait| {
            Rejection::too_many("too-many-failures", "too many failed attempts from this address", wait)
        })?;
        authenticate::authenticate(peer, metadata, &ca.trust, &self.state.tokens.load(), &self.store, &self.state.clock)
            .map_err(|unknown| {
                self.metrics.authentication_failure.inc();
                // Count the failure even if the bucket is full.
                let _counted = self.failures.take(from, FAILURE_RATE, now);
                let mut rejection = Rejection::unauthenticated(unknown.class(), unknown.to_string());
                rejection.id = unknown.id().cloned();
                rejection
            })
    }

    /// The registration of a caller. A caller with only a token does not learn that its ID is not registered.
    pub(crate) fn registered<'a>(
        &self,
        caller: &Caller,
        all: &'a Registrations,
    ) -> Result<&'a Registration, Box<Rejection>> {
        all.get(&caller.id).ok_or_else(|| {
            self.metrics.id_extraction.inc();
            let (class, detail) = ("not-registered", "the ID is not in identities.yaml");
            let rejection = match caller.method {
                AuthMethod::Token(_) => Rejection::unauthenticated(class, detail),
                AuthMethod::Svid => Rejection::new(Code::PermissionDenied, "the ID is not registered", class, detail),
            };
            rejection.of(&caller.id)
        })
    }

    /// Admits, authenticates, authorises, limits, checks the key, and signs.
    async fn create(
        &self,
        peer: &Peer,
        metadata: &MetadataMap,
        request: &IstioCertificateRequest,
    ) -> Result<Vec<String>, Box<Rejection>> {
        let _admitted = self.in_flight.try_acquire(&ClientSource::of(peer.address.ip())).ok_or_else(busy)?;
        let ca = self.state.ca();
        let caller = self.authenticate(peer, metadata, &ca)?;
        let registrations = self.state.registrations.load_full();
        let registration = self.registered(&caller, &registrations)?;
        self.limit(&caller.id, registrations.limits)?;
        let key = self.accepted_key(request, registration, &caller.id)?;
        let ttl = registration.lifetime(request.validity_duration, self.state.resources.load().default_lifetimes);
        let entry = Entry::new("issued", "CreateCertificate", peer.address, self.state.clock.now_unix());
        let work = IssueRequest {
            state: Arc::clone(&self.state),
            store: Arc::clone(&self.store),
            audit: Arc::clone(&self.audit),
            caller,
            key,
            ttl,
            bundle_digest: report::bundle_digest(metadata).map(str::to_owned),
            entry,
        };
        self.issue(work).await
    }

    /// The rates of the identity and of all together.
    pub(crate) fn limit(&self, id: &SpiffeId, limits: Limits) -> Result<(), Box<Rejection>> {
        let now = Instant::now();
        let own = Rate::per(limits.per_identity_per_minute, Duration::from_secs(60));
        let limited = |wait| Rejection::too_many("rate-identity", "this identity asks too often", wait).of(id);
        self.identities.take(id.clone(), own, now).map_err(limited)?;
        let all = Rate::per(limits.total_per_second, Duration::from_secs(1));
        let limited = |wait| Rejection::too_many("rate-all", "all identities together ask too often", wait).of(id);
        self.all.take((), all, now).map_err(limited)
    }

    /// The key of the request, if the caller holds it and may have a key of this kind.
    fn accepted_key(
        &self,
        request: &IstioCertificateRequest,
        registration: &Registration,
        id: &SpiffeId,
    ) -> Result<CertifiedPublicKey, Box<Rejection>> {
        let key = CertifiedPublicKey::from_csr(request.csr.as_bytes()).map_err(|error| {
            self.metrics.csr_parsing.inc();
            Rejection::new(Code::InvalidArgument, "the request is refused", error.class(), error.to_string()).of(id)
        })?;
        let kind = key.kind();
        if !registration.accepts(kind) {
            let detail = format!("keyTypes of this identity do not have {}", kind.name());
            let rejection = Rejection::new(Code::InvalidArgument, "the kind of key is refused", "key-type", detail);
            return Err(rejection.of(id));
        }
        if let Some(warning) = kind.warning() {
            tracing::warn!(%id, key_type = kind.name(), warning, "a certificate that not every peer accepts");
        }
        Ok(key)
    }

    /// Signs and commits on a thread that may wait for the disk; it is done to its end even if the caller is gone.
    async fn issue(&self, work: IssueRequest) -> Result<Vec<String>, Box<Rejection>> {
        let (id, hash) = (work.caller.id.clone(), work.key.hash());
        let uses_token = matches!(&work.caller.method, AuthMethod::Token(token) if !token.reusable);
        let permit = Arc::clone(&self.workers).acquire_owned().await.map_err(|_| busy())?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            issue::issue(work)
        });
        let result = done.await.map_err(|error| unavailable("panic", error.to_string()))?;
        // Also after a success: the snapshot that follows may have failed.
        if self.store.broken().is_some() {
            self.state_failed.notify_one();
        }
        if uses_token {
            self.used.send_modify(|count| *count = count.wrapping_add(1));
        }
        result.map_err(|error| {
            let mut rejection = self.not_issued(&error).of(&id);
            rejection.key = Some(hash);
            rejection
        })
    }

    fn not_issued(&self, error: &IssueError) -> Box<Rejection> {
        let detail = error.to_string();
        let (label, rejection) = match error {
            IssueError::Refused(IssuanceRefusal::TokenUsed) => {
                self.metrics.authentication_failure.inc();
                return Rejection::unauthenticated("token-used", detail);
            }
            IssueError::Refused(IssuanceRefusal::KeyHeld(_)) => {
                let message = "the key is held by another identity; make a new one";
                ("KEY_HELD", Rejection::new(Code::AlreadyExists, message, "key-held", detail))
            }
            IssueError::Sign(_) => ("CERT_GEN_ERROR", unavailable("sign", detail)),
            IssueError::State(_) => ("STATE_ERROR", unavailable("state", detail)),
            IssueError::Audit(_) => ("AUDIT_ERROR", unavailable("audit", detail)),
        };
        self.metrics.sign_error.with_label_values(&[label]).inc();
        rejection
    }

    /// Audits a refusal and builds the answer.
    pub(crate) fn refuse(&self, call: &'static str, peer: &Peer, rejection: &Rejection) -> Status {
        let mut entry = Entry::new("refused", call, peer.address, self.state.clock.now_unix());
        entry.id = rejection.id.as_ref().map(ToString::to_string);
        entry.key_sha256 = rejection.key.map(|key| key.to_string());
        entry.reason = Some(rejection.class);
        entry.detail = Some(rejection.detail.clone());
        if self.audit.refused(entry, Instant::now()) {
            let id = rejection.id.as_ref().map(tracing::field::display);
            tracing::warn!(call, caller = %peer.address, id, reason = rejection.class, detail = %rejection.detail, "refused");
        }
        let mut metadata = MetadataMap::new();
        if let Some(wait) = rejection.wait {
            let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1);
            metadata.insert("retry-after", MetadataValue::from(seconds));
        }
        Status::with_metadata(rejection.code, rejection.message, metadata)
    }
}

pub(crate) fn busy() -> Box<Rejection> {
    Rejection::too_many("busy", "too many requests are under way", Duration::from_secs(1))
}

pub(crate) fn unavailable(class: &'static str, detail: String) -> Box<Rejection> {
    tracing::error!(class, %detail, "cannot issue");
    Rejection::new(Code::Unavailable, "the CA cannot sign now; its log says why", class, detail)
}

/// The peer, which `connection` attached to the request.
pub(crate) fn peer_of<T>(request: &Request<T>) -> Result<Arc<Peer>, Status> {
    request.extensions().get::<Arc<Peer>>().cloned().ok_or_else(|| Status::internal("no connection"))
}

/// A handle that the generated servers take.
#[derive(Clone)]
pub(crate) struct Shared(pub(crate) Arc<Services>);

#[tonic::async_trait]
impl IstioCertificateService for Shared {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let Self(services) = self;
        let peer = peer_of(&request)?;
        services.metrics.csr.inc();
        let (metadata, _, message) = request.into_parts();
        match services.create(&peer, &metadata, &message).await {
            Ok(cert_chain) => {
                services.metrics.issued.inc();
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
            Err(rejection) => Err(services.refuse("CreateCertificate", &peer, &rejection)),
        }
    }
}

#[tonic::async_trait]
impl TrustBundles for Shared {
    async fn get_trust_bundles(
        &self,
        request: Request<GetTrustBundlesRequest>,
    ) -> Result<Response<GetTrustBundlesResponse>, Status> {
        let Self(services) = self;
        let peer = peer_of(&request)?;
        let ca = services.state.ca();
        let caller = match services.authenticate(&peer, request.metadata(), &ca) {
            Ok(caller) => caller,
            Err(rejection) => return Err(services.refuse("GetTrustBundles", &peer, &rejection)),
        };
        let registrations = services.state.registrations.load_full();
        if let Err(rejection) = services.registered(&caller, &registrations) {
            return Err(services.refuse("GetTrustBundles", &peer, &rejection));
        }
        if let Err(wait) = services.bundle_requests.take(caller.id.clone(), BUNDLE_RATE, Instant::now()) {
            let rejection = Rejection::too_many("rate-identity", "this identity asks too often", wait);
            return Err(services.refuse("GetTrustBundles", &peer, &rejection.of(&caller.id)));
        }
        report::note(&services.store, &services.state, &services.state_failed, &caller, request.metadata());
        let bundles = services.state.bundles(&ca).into_iter().map(|(domain, roots)| TrustBundle {
            trust_domain: domain.to_string(),
            roots: roots.iter().map(|root| root.to_vec()).collect(),
        });
        Ok(Response::new(GetTrustBundlesResponse {
            bundles: bundles.collect(),
            refresh_hint_seconds: u32::try_from(registrations.refresh_hint.as_secs()).unwrap_or(u32::MAX),
        }))
    }
}
