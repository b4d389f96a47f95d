//! A real CA on a real socket, and a client that says what it likes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis_ca::TokenKey;
use portcullis_ca_server::{CaServer, Config, StartError};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_rpc::bundles::GetTrustBundlesResponse;
use portcullis_rpc::bundles::trust_bundles_client::TrustBundlesClient;
use portcullis_rpc::istio::IstioCertificateRequest;
use portcullis_rpc::istio::istio_certificate_service_client::IstioCertificateServiceClient;
use portcullis_testkit::certs::{self, Profile};
use portcullis_tls::Clock;
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Request, Status};

pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
pub(crate) use portcullis_testkit::wait::{PATIENCE, eventually_async as eventually};

pub(crate) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

pub(crate) fn registered(ids: &[&str]) -> String {
    let items: String = ids.iter().map(|id| format!("- id: {id}\n")).collect();
    format!("identities:\n{items}")
}

/// A CA for this folder that listens on a free port of loopback.
pub(crate) fn local_config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        names: Vec::new(),
        bootstrap: None,
        metrics: None,
        default_lifetimes: portcullis_ca::DefaultLifetimes::default(),
        clock: Clock::system(),
    }
}

/// A CA in a folder, plugged in from elsewhere, so that a test can sign what the CA would not.
pub(crate) struct Stage {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) root: certs::Authority,
    pub(crate) issuing: certs::Authority,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Option<SocketAddr>,
    /// The CA's clock, which stands still until it is moved.
    seconds: Arc<AtomicU64>,
    end: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

impl Stage {
    pub(crate) async fn start(identities: &str) -> Self {
        let root = certs::Authority::root("cluster.local");
        Self::start_with(identities, root, Profile::authority("cluster.local", "CN=issuing"), None).await
    }

    pub(crate) async fn start_with(
        identities: &str,
        root: certs::Authority,
        profile: Profile,
        bootstrap: Option<PathBuf>,
    ) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), identities, root, profile, bootstrap).await
    }

    pub(crate) async fn start_in(
        folder: tempfile::TempDir,
        identities: &str,
        root: certs::Authority,
        profile: Profile,
        bootstrap: Option<PathBuf>,
    ) -> Self {
        let issuing = root.below(&profile);
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        // The chain of a leaf has the CA's own certificate behind it.
        let chain = issuing.workload(CART).chain;
        let ca_cert = pem(&chain[1]);
        write("ca-cert.pem", &ca_cert);
        write("ca-key.pem", &issuing.key_pem());
        write("cert-chain.pem", &format!("{ca_cert}{}", root.bundle_pem()));
        write("root-cert.pem", &root.bundle_pem());
        write("token-key.pem", &TokenKey::generate().unwrap());
        write("identities.yaml", identities);
        // A little before now, so that no certificate of the test kit ends earlier than it says, seen from here.
        let seconds = Arc::new(AtomicU64::new(u64::try_from(now()).unwrap() - 10));
        let address = ([127, 0, 0, 1], 0).into();
        let mut stage = Self { folder, root, issuing, address, metrics: None, seconds, end: None, served: None };
        stage.run(bootstrap).await;
        stage
    }

    async fn run(&mut self, bootstrap: Option<PathBuf>) {
        let config = Config {
            names: vec![portcullis_ca::ServerName::parse("ca.test").unwrap()],
            bootstrap,
            metrics: Some(([127, 0, 0, 1], 0).into()),
            clock: self.clock(),
            ..local_config(self.folder.path())
        };
        let authority = start(config).await.unwrap();
        (self.address, self.metrics) = (authority.address().unwrap(), authority.metrics_address());
        let (end, ended) = oneshot::channel::<()>();
        self.end = Some(end);
        self.served = Some(tokio::spawn(authority.serve(async {
            let _ended = ended.await;
        })));
    }

    /// Ends as SIGTERM does.
    pub(crate) async fn stop(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.served.take().unwrap()).await.unwrap().unwrap();
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run(None).await;
    }

    pub(crate) fn clock(&self) -> Clock {
        Clock::shared(Arc::clone(&self.seconds))
    }

    /// Lets time pass for the CA, and for clients that follow its clock.
    pub(crate) fn advance(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::AcqRel);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn tokens(&self) -> TokenKey {
        let file = std::fs::read(self.path("token-key.pem")).unwrap();
        TokenKey::read(&file, &TrustDomain::parse("cluster.local").unwrap()).unwrap()
    }

    pub(crate) fn token(&self, id: &str) -> String {
        self.tokens()
            .issue(&SpiffeId::parse(id).unwrap(), Duration::from_secs(600), false, self.clock().now_unix())
            .unwrap()
            .0
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect_in(self, &self.root.bundle_pem(), None).await.unwrap()
    }

    pub(crate) async fn connect_as(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Client {
        Client::connect_in(self, &self.root.bundle_pem(), Some((chain, key))).await.unwrap()
    }

    /// A new certificate, with its key, by token.
    pub(crate) async fn svid(&self, id: &str) -> (Vec<CertificateDer<'static>>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let answer = self.connect().await.create(&csr(&key), Some(&self.token(id))).await.unwrap();
        (without_root(&answer), key)
    }

    pub(crate) fn audit(&self) -> String {
        std::fs::read_to_string(self.path("audit.jsonl")).unwrap_or_default()
    }

    pub(crate) async fn scrape(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TcpStream::connect(self.metrics.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

pub(crate) fn pem(der: &[u8]) -> String {
    String::from_utf8(portcullis_testkit::openssl(["x509", "-inform", "DER"], der)).unwrap()
}

pub(crate) fn der(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

pub(crate) fn without_root(answer: &[String]) -> Vec<CertificateDer<'static>> {
    let (_roots, chain) = answer.split_last().unwrap();
    chain.iter().flat_map(|text| der(text)).collect()
}

pub(crate) fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

pub(crate) fn csr(key: &KeyPair) -> String {
    CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
}

/// One connection, with the generated clients over it.
#[derive(Clone)]
pub(crate) struct Client {
    sender: SendRequest<Body>,
}

impl Service<http::Request<Body>> for Client {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut sender = self.sender.clone();
        Box::pin(async move { sender.send_request(request).await })
    }
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr, roots: &str, own: Option<Credentials>) -> std::io::Result<Self> {
        Self::connect_named(address, roots, own, "ca.test").await
    }

    /// From another loopback address.
    pub(crate) async fn connect_from(source: [u8; 4], address: SocketAddr, roots: &str) -> std::io::Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::over(socket.connect(address).await?, roots, None, "ca.test", Clock::system()).await
    }

    /// Verifies the server as Istio's agents do: by name, with the roots that it was given.
    pub(crate) async fn connect_named(
        address: SocketAddr,
        roots: &str,
        own: Option<Credentials>,
        name: &str,
    ) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address).await?, roots, own, name, Clock::system()).await
    }

    /// Verifies the server at the time of the CA's own clock.
    pub(crate) async fn connect_in(stage: &Stage, roots: &str, own: Option<Credentials>) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(stage.address).await?, roots, own, "ca.test", stage.clock()).await
    }

    async fn over(
        stream: TcpStream,
        roots: &str,
        own: Option<Credentials>,
        name: &str,
        clock: Clock,
    ) -> std::io::Result<Self> {
        let mut store = RootCertStore::empty();
        for root in der(roots) {
            store.add(root).unwrap();
        }
        let builder = rustls::ClientConfig::builder_with_details(portcullis_tls::provider(), Arc::new(clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(store);
        let mut config = match own {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = name.to_owned().try_into().unwrap();
        let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls))
            .await
            .map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    pub(crate) async fn create(&self, csr: &str, token: Option<&str>) -> Result<Vec<String>, Status> {
        self.create_for(csr, token, 0).await
    }

    pub(crate) async fn create_for(&self, csr: &str, token: Option<&str>, seconds: i64) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::with_origin(self.clone(), "https://ca.test".parse().unwrap());
        let message = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: seconds, metadata: None };
        let answer = client.create_certificate(authorized(Request::new(message), token)).await?;
        Ok(answer.into_inner().cert_chain)
    }

    /// The same, telling which bundles are in use.
    pub(crate) async fn create_with(&self, csr: &str, token: &str, digest: &str) -> Result<Vec<String>, Status> {
        let mut client = IstioCertificateServiceClient::with_origin(self.clone(), "https://ca.test".parse().unwrap());
        let message = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 0, metadata: None };
        let mut request = authorized(Request::new(message), Some(token));
        request.metadata_mut().insert("x-portcullis-bundle", digest.parse().unwrap());
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    /// Asks for bundles as a sidecar does that reports its connections.
    pub(crate) async fn bundles_reporting(&self, digest: &str, connections: &str) -> Result<(), Status> {
        let mut client = TrustBundlesClient::with_origin(self.clone(), "https://ca.test".parse().unwrap());
        let mut request = Request::new(portcullis_rpc::bundles::GetTrustBundlesRequest {});
        request.metadata_mut().insert("x-portcullis-bundle", digest.parse().unwrap());
        request.metadata_mut().insert("x-portcullis-connections", connections.parse().unwrap());
        client.get_trust_bundles(request).await.map(drop)
    }

    pub(crate) async fn bundles(&self, token: Option<&str>, digest: &str) -> Result<GetTrustBundlesResponse, Status> {
        let mut client = TrustBundlesClient::with_origin(self.clone(), "https://ca.test".parse().unwrap());
        let mut request = authorized(Request::new(portcullis_rpc::bundles::GetTrustBundlesRequest {}), token);
        request.metadata_mut().insert("x-portcullis-bundle", digest.parse().unwrap());
        Ok(client.get_trust_bundles(request).await?.into_inner())
    }
}

fn authorized<T>(mut request: Request<T>, token: Option<&str>) -> Request<T> {
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

pub(crate) fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Starts a CA on a folder that another one of this process may have left a moment ago. Its lock is inherited by a child that
/// another test has forked, until that child executes its program.
pub(crate) async fn start(config: Config) -> Result<CaServer, StartError> {
    let began = std::time::Instant::now();
    loop {
        match CaServer::start(config.clone()).await {
            Err(error) if error.to_string().contains("another CA runs") && began.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            started => return started,
        }
    }
}
