//! The scene of most tests: the mesh of example.org with its CA, a clock that stands still, and connections in memory.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use portcullis_identity::leaf::Compat;
use portcullis_identity::{ExpectedIds, SpiffeId, TrustDomain};
use portcullis_testkit::RawPeer;
use portcullis_testkit::certs::{self, Authority, Issued};
use portcullis_tls::{
    Clock, CredentialError, CredentialFiles, Credentials, HandshakeError, IdentityRules, MinVersion, PeerInfo, Stream,
    client, server,
};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

pub(crate) const DOMAIN: &str = "example.org";
pub(crate) const ME: &str = "spiffe://example.org/ns/default/sa/me";
pub(crate) const WEB: &str = "spiffe://example.org/ns/default/sa/web";

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn td(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

pub(crate) fn expect(text: &str) -> ExpectedIds {
    ExpectedIds::new([id(text)]).unwrap()
}

pub(crate) fn rules(own: &str) -> IdentityRules {
    IdentityRules {
        trust_domain: td(DOMAIN),
        aliases: Vec::new(),
        expected_own_id: id(own),
        compat: Compat::default(),
        min_version: MinVersion::Tls13,
    }
}

/// A clock that stands still at the time at which it was made, until the test sets it.
pub(crate) fn still_clock() -> (Clock, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(u64::try_from(certs::now()).unwrap()));
    (Clock::shared(Arc::clone(&seconds)), seconds)
}

pub(crate) fn files(issued: &Issued, bundle: &str) -> CredentialFiles {
    CredentialFiles::new(issued.cert_pem().into(), issued.key_pem().into(), bundle.into(), Vec::new())
}

pub(crate) fn validate(files: CredentialFiles, rules: &IdentityRules) -> Result<Credentials, CredentialError> {
    Credentials::validate(files, rules, &Clock::system())
}

/// Credentials without fault for a workload of example.org.
pub(crate) fn credentials(ca: &Authority, own: &str) -> Arc<Credentials> {
    Arc::new(validate(files(&ca.workload(own), &ca.bundle_pem()), &rules(own)).unwrap())
}

/// The same, with something changed in the rules.
pub(crate) fn credentials_with(ca: &Authority, own: &str, change: impl FnOnce(&mut IdentityRules)) -> Arc<Credentials> {
    let mut rules = rules(own);
    change(&mut rules);
    Arc::new(validate(files(&ca.workload(own), &ca.bundle_pem()), &rules).unwrap())
}

pub(crate) type Ours = Result<(Stream<DuplexStream>, PeerInfo), HandshakeError>;

/// A connection in memory.
pub(crate) fn pipe() -> (DuplexStream, DuplexStream) {
    tokio::io::duplex(256 * 1024)
}

/// We are the server, `peer` is the client. Also what the client saw: what it could read, or its error.
pub(crate) async fn inbound(credentials: &Arc<Credentials>, peer: &RawPeer) -> (Ours, std::io::Result<Vec<u8>>) {
    inbound_config(credentials, peer.client()).await
}

pub(crate) async fn inbound_config(
    credentials: &Arc<Credentials>,
    config: rustls::ClientConfig,
) -> (Ours, std::io::Result<Vec<u8>>) {
    let (near, far) = pipe();
    let accept = async {
        let mut ours = server::accept(near, credentials).await;
        if let Ok((stream, _)) = &mut ours {
            // Both in one go would let the client believe in success without the server's word.
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
        }
        ours
    };
    let dial = async {
        let name = ServerName::try_from("anything.test").unwrap();
        let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, far).await?;
        let mut seen = Vec::new();
        stream.read_to_end(&mut seen).await?;
        Ok(seen)
    };
    tokio::join!(accept, dial)
}

/// We are the client, `peer` is the server. Also the server's error, if its handshake failed.
pub(crate) async fn outbound(
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
    peer: &RawPeer,
) -> (Ours, std::io::Result<()>) {
    let (near, far) = pipe();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(peer.server()));
    let serve = async { acceptor.accept(far).await.map(|_| ()) };
    tokio::join!(client::connect(near, credentials, expected, None), serve)
}

/// Both sides are ours.
pub(crate) async fn between(
    client: &Arc<Credentials>,
    server: &Arc<Credentials>,
    expected: &ExpectedIds,
) -> (Ours, Ours) {
    let (near, far) = pipe();
    tokio::join!(client::connect(near, client, expected, None), server::accept(far, server))
}

/// The alert that a peer got, if it got one.
pub(crate) fn alert<T>(seen: &std::io::Result<T>) -> Option<rustls::AlertDescription> {
    let error = seen.as_ref().err()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    match error {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}
