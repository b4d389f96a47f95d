//! A certificate authority that speaks Istio's protocol over real sockets and TLS, and that can misbehave.
//!
//! It plays istiod (no bundles: `GetTrustBundles` is unimplemented) or for Portcullis' own authority
//! ([`IstioCa::hand_out`]). A caller authenticates with a token, or with a certificate that was issued here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use portcullis_rpc::bundles::trust_bundles_server::{TrustBundles, TrustBundlesServer};
use portcullis_rpc::bundles::{GetTrustBundlesRequest, GetTrustBundlesResponse, TrustBundle};
use portcullis_rpc::istio::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use portcullis_rpc::istio::{IstioCertificateRequest, IstioCertificateResponse};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::certs::{Authority, Basic, Profile, San, now, to_pem};
use crate::certs_key::{Key, KeyKind};
use crate::certs_peer::RawPeer;
use crate::grpc;

/// What it may do wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs, reason = "each is named by what it does")]
pub enum CaFault {
    OtherId,
    OtherDomain,
    CaCertificate,
    KeyMismatch,
    Expired,
    ChainTooLong,
    NoSan,
    TwoSans,
    GarbagePem,
    ForeignSigner,
    Empty,
    Huge,
    NeverAnswers,
    ClosesEarly,
    Unauthenticated,
}

/// One request as it was received.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// `CreateCertificate` or `GetTrustBundles`.
    pub call: &'static str,
    /// Whether a token was the proof; otherwise it was a certificate.
    pub by_token: bool,
    /// `x-portcullis-bundle`.
    pub digest: Option<String>,
    /// The key that is to be certified.
    pub spki: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<String, String>,
    issued: BTreeMap<Vec<u8>, String>,
    fault: Option<CaFault>,
    signer: Option<Authority>,
    bundles: Option<Vec<(String, Vec<Vec<u8>>)>>,
    hint: u32,
    seen: Vec<Seen>,
    used: BTreeSet<String>,
}

type Shared = Arc<Mutex<State>>;

/// The running authority.
#[derive(Debug)]
pub struct IstioCa {
    /// Where it listens.
    pub address: SocketAddr,
    authority: Authority,
    state: Shared,
    runtime: Option<Runtime>,
}

impl IstioCa {
    /// Signs with this authority, which also vouches for the server: `localhost`, 127.0.0.1.
    #[must_use]
    pub fn start(authority: &Authority) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut ca = Self { address, authority: authority.clone(), state: Shared::default(), runtime: None };
        ca.come_back();
        ca
    }

    /// Accepts this token as that of workload `id`.
    pub fn accept_token(&self, token: &str, id: &str) {
        self.state().tokens.insert(token.to_owned(), id.to_owned());
    }

    /// Misbehaves like this from now on; `None` ends it.
    pub fn set_fault(&self, fault: Option<CaFault>) {
        self.state().fault = fault;
    }

    /// Signs with another authority from now on; its own certificate stays as it is.
    pub fn sign_with(&self, authority: &Authority) {
        self.state().signer = Some(authority.clone());
    }

    /// Serves these roots as bundles, with this hint in seconds; without this the call is unimplemented.
    pub fn hand_out(&self, bundles: &[(&str, &Authority)], hint: u32) {
        let mut all: Vec<(String, Vec<Vec<u8>>)> = Vec::new();
        for (domain, authority) in bundles {
            let root = authority.root_der().to_vec();
            match all.iter_mut().find(|(name, _)| name == domain) {
                Some((_, roots)) => roots.push(root),
                None => all.push(((*domain).to_owned(), vec![root])),
            }
        }
        let mut state = self.state();
        (state.bundles, state.hint) = (Some(all), hint);
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The number of certificate requests.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state().seen.iter().filter(|seen| seen.call == "CreateCertificate").count()
    }

    /// Stops listening and closes all connections.
    pub fn go_down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Listens again, at the same address.
    pub fn come_back(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(async {
            let start = std::time::Instant::now();
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    // What was taken down may still be closing.
                    Err(error) => assert!(start.elapsed().as_secs() < 10, "{}: {error}", self.address),
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        });
        self.address = listener.local_addr().unwrap();
        let mut profile = Profile::leaf("");
        profile.sans = Some(vec![San::Dns("localhost".to_owned()), San::Ip([127, 0, 0, 1])]);
        let server = RawPeer::presenting(&self.authority.issue(&profile))
            .with_versions(&[&rustls::version::TLS13])
            .with_alpn(&[b"h2"])
            .server();
        let (authority, state) = (self.authority.clone(), Arc::clone(&self.state));
        runtime.spawn(accept(listener, Arc::new(server), authority, state));
        self.runtime = Some(runtime);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for IstioCa {
    fn drop(&mut self) {
        self.go_down();
    }
}

async fn accept(listener: TcpListener, config: Arc<rustls::ServerConfig>, authority: Authority, state: Shared) {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, authority, state) = (acceptor.clone(), authority.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            if state.lock().unwrap().fault == Some(CaFault::ClosesEarly) {
                // After the handshake, in the middle of the first request.
                let _stream = acceptor.accept(stream).await;
                return;
            }
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
            let caller = Caller { peer, authority, state };
            grpc::serve(stream, |request| {
                let caller = caller.clone();
                async move {
                    match request.uri().path() {
                        path if path.starts_with("/istio.v1.auth.IstioCertificateService/") => {
                            grpc::call(IstioCertificateServiceServer::new(caller), request).await
                        }
                        path if path.starts_with("/portcullis.ca.v1.TrustBundles/")
                            && caller.state.lock().unwrap().bundles.is_some() =>
                        {
                            grpc::call(TrustBundlesServer::new(caller), request).await
                        }
                        _ => grpc::unimplemented(),
                    }
                }
            })
            .await;
        });
    }
}

/// One connection's caller.
#[derive(Clone)]
struct Caller {
    peer: Option<CertificateDer<'static>>,
    authority: Authority,
    state: Shared,
}

impl Caller {
    /// Authenticates the caller by certificate or token, and records the request.
    fn who(&self, call: &'static str, metadata: &MetadataMap, spki: Vec<u8>) -> Result<String, Status> {
        let text = |name: &str| metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let token = text("authorization").and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
        let mut state = self.state.lock().unwrap();
        state.seen.push(Seen { call, by_token: token.is_some(), digest: text("x-portcullis-bundle"), spki });
        if state.fault == Some(CaFault::Unauthenticated) {
            return Err(Status::unauthenticated("not today"));
        }
        let known = match (&self.peer, token) {
            (Some(peer), _) => state.issued.get(peer.as_ref()).cloned(),
            // A token is good for one certificate.
            (None, Some(token)) if state.used.insert(token.clone()) => state.tokens.get(&token).cloned(),
            (None, _) => None,
        };
        known.ok_or_else(|| Status::unauthenticated("who are you?"))
    }
}

#[tonic::async_trait]
impl IstioCertificateService for Caller {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let asked = request.get_ref();
        let csr = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(asked.csr.as_bytes())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let spki = {
            let (_, csr) = X509CertificationRequest::from_der(&csr).map_err(|_| Status::invalid_argument("no CSR"))?;
            csr.verify_signature().map_err(|_| Status::invalid_argument("the CSR is not signed with its key"))?;
            csr.certification_request_info.subject_pki.raw.to_vec()
        };
        let id = self.who("CreateCertificate", request.metadata(), spki.clone())?;
        let fault = self.state.lock().unwrap().fault;
        if fault == Some(CaFault::NeverAnswers) {
            std::future::pending::<()>().await;
        }
        let mut profile = Profile::leaf(&id).valid(now() - 60, now() + asked.validity_duration);
        let signer = self.state.lock().unwrap().signer.clone();
        let cert_chain = answer(signer.as_ref().unwrap_or(&self.authority), fault, &mut profile, spki);
        if let (None, Some(Ok(leaf))) =
            (fault, cert_chain.first().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes())))
        {
            self.state.lock().unwrap().issued.insert(leaf.to_vec(), id);
        }
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

/// The chain, true or not: each certificate in a string of its own, the root last.
fn answer(authority: &Authority, fault: Option<CaFault>, profile: &mut Profile, mut spki: Vec<u8>) -> Vec<String> {
    let mut signer = authority.clone();
    match fault {
        Some(CaFault::OtherId) => profile.sans = Some(vec![San::uri("spiffe://cluster.local/ns/shop/sa/other")]),
        Some(CaFault::OtherDomain) => profile.sans = Some(vec![San::uri("spiffe://other.test/ns/shop/sa/cart")]),
        Some(CaFault::CaCertificate) => {
            profile.basic = Some(Basic { ca: true, path_len: None });
            profile.key_usage = Some(vec![Profile::DIGITAL_SIGNATURE, Profile::KEY_CERT_SIGN]);
        }
        Some(CaFault::KeyMismatch) => spki = Key::new(KeyKind::P256).spki(),
        Some(CaFault::Expired) => *profile = profile.clone().valid(now() - 7200, now() - 60),
        Some(CaFault::NoSan) => profile.sans = None,
        Some(CaFault::TwoSans) => {
            let own = profile.sans.clone().unwrap();
            profile.sans = Some([own, vec![San::uri("spiffe://cluster.local/ns/shop/sa/other")]].concat());
        }
        Some(CaFault::ForeignSigner) => signer = Authority::root("cluster.local"),
        Some(CaFault::Empty) => return Vec::new(),
        Some(CaFault::GarbagePem) => return vec!["-----BEGIN CERTIFICATE-----\nnonsense".to_owned()],
        Some(CaFault::Huge) => return vec!["x".repeat(4 * 1024 * 1024)],
        _ => {}
    }
    let mut chain = signer.certify(profile, spki);
    if fault == Some(CaFault::ChainTooLong) {
        chain.extend((0..12).map(|_| Authority::root("cluster.local").root_der().clone()));
    }
    chain.push(authority.root_der().clone());
    chain.iter().map(|certificate| to_pem(std::slice::from_ref(certificate))).collect()
}

#[tonic::async_trait]
impl TrustBundles for Caller {
    async fn get_trust_bundles(
        &self,
        request: Request<GetTrustBundlesRequest>,
    ) -> Result<Response<GetTrustBundlesResponse>, Status> {
        self.who("GetTrustBundles", request.metadata(), Vec::new())?;
        let state = self.state.lock().unwrap();
        let bundles = state.bundles.clone().unwrap_or_default();
        let bundles = bundles.into_iter().map(|(trust_domain, roots)| TrustBundle { trust_domain, roots }).collect();
        Ok(Response::new(GetTrustBundlesResponse { bundles, refresh_hint_seconds: state.hint }))
    }
}
