//! TLS for clients outside of the mesh: the server proves who it is, with a certificate for the name that the client asks for, and
//! the client only if it is asked to (Istio's modes SIMPLE and MUTUAL).

use std::fmt;
use std::sync::{Arc, OnceLock};

use portcullis_identity::HostPattern;
use portcullis_record::TrafficSecretLog;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, UnbufferedServerConnection,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, Error, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::{Clock, utc};
use crate::credentials::MinVersion;
use crate::handshake::HandshakeError;
use crate::negotiated::Negotiated;
use crate::outside::{KeyPairError, RootsError, chosen_roots, key_pair};
use crate::provider::provider;
use crate::server::handshake;
use crate::session::{RefusalAlert, Session};
use crate::stream::Stream;

/// A certificate and the hosts that it is presented for. Files are given by their content.
#[derive(Clone)]
pub struct CertificateFor {
    /// The hosts; at least one.
    pub hosts: Vec<HostPattern>,
    /// The chain in PEM, leaf first.
    pub chain: Vec<u8>,
    /// The key in PEM.
    pub key: zeroize::Zeroizing<Vec<u8>>,
}

impl fmt::Debug for CertificateFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFor").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// What outsiders are served with.
#[derive(Clone, Debug)]
pub struct OneWayParts {
    /// The first that has a host for the client's server name is presented.
    pub certificates: Vec<CertificateFor>,
    /// Whether a client that sends no server name gets the first certificate. Otherwise it is refused.
    pub first_without_name: bool,
    /// Roots in PEM: a client must then present a certificate that leads to one of them.
    pub client_ca: Option<Vec<u8>>,
    /// The lowest version that a client may have.
    pub min_version: MinVersion,
}

/// Why outsiders cannot be served like this.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OneWayError {
    /// There is no certificate, or one without a host.
    #[error("certificates: name at least one, with at least one host each")]
    Empty,
    /// A certificate and its key cannot be used.
    #[error("certificates[{index}]: {error}")]
    KeyPair {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        error: KeyPairError,
    },
    /// The certificate is not for this host, so that every client would refuse it.
    #[error(
        "certificates[{index}]: the certificate is not valid for {host}; list the hosts that it is for, or get another one"
    )]
    Host {
        /// Which, from 0.
        index: usize,
        /// The host.
        host: HostPattern,
    },
    /// The certificate has expired, so that every client would refuse it.
    #[error("certificates[{index}]: the certificate has expired, at {}; get a new one", utc(*not_after_unix))]
    Expired {
        /// Which, from 0.
        index: usize,
        /// Its last second, in Unix time.
        not_after_unix: i64,
    },
    /// The leaf cannot be read.
    #[error("certificates[{index}]: the certificate cannot be read: {why}")]
    Unreadable {
        /// Which, from 0.
        index: usize,
        /// What is wrong.
        why: String,
    },
    /// The roots for clients cannot be used.
    #[error("clientCa: {0}")]
    ClientCa(RootsError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl OneWayError {
    /// The stable class, for tests, metrics and JSON.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Empty => "no-certificate",
            Self::KeyPair { error, .. } => error.class(),
            Self::Host { .. } => "server-name",
            Self::Expired { .. } => "expired",
            Self::Unreadable { .. } => "der",
            Self::ClientCa(_) => "client-ca",
            Self::Tls(_) => "tls",
        }
    }
}

/// What outsiders are served with, checked and ready to use. Immutable; a change of the files makes a new one.
pub struct OneWayServer {
    template: ServerConfig,
    certificates: Arc<Certificates>,
    not_after_unix: i64,
}

#[derive(Debug)]
struct Certificates {
    by_host: Vec<(Vec<HostPattern>, Arc<CertifiedKey>)>,
    first_without_name: bool,
}

impl Certificates {
    fn choose(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let chosen = match name {
            Some(name) => self.by_host.iter().find(|(hosts, _)| hosts.iter().any(|host| host.matches(name))),
            None if self.first_without_name => self.by_host.first(),
            None => None,
        };
        chosen.map(|(_, key)| key)
    }
}

impl OneWayServer {
    /// Checks that each certificate is valid now, for each of its hosts, and has its key. That its chain leads to a root of the
    /// clients cannot be known here.
    ///
    /// # Errors
    /// The first error.
    pub fn new(parts: &OneWayParts, clock: &Clock) -> Result<Self, OneWayError> {
        let mut by_host = Vec::with_capacity(parts.certificates.len());
        let mut not_after_unix = i64::MAX;
        for (index, CertificateFor { hosts, chain, key }) in parts.certificates.iter().enumerate() {
            let (_, key) = key_pair(chain, key).map_err(|error| OneWayError::KeyPair { index, error })?;
            not_after_unix = not_after_unix.min(check_leaf(index, hosts, &key, clock.now_unix())?);
            by_host.push((hosts.clone(), key));
        }
        if by_host.is_empty() || by_host.iter().any(|(hosts, _)| hosts.is_empty()) {
            return Err(OneWayError::Empty);
        }
        let certificates = Arc::new(Certificates { by_host, first_without_name: parts.first_without_name });
        let template = template(parts, clock, Arc::clone(&certificates))?;
        Ok(Self { template, certificates, not_after_unix })
    }

    /// The last second at which all of the certificates are valid, in Unix time.
    #[must_use]
    pub const fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }
}

impl fmt::Debug for OneWayServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneWayServer").field("certificates", &self.certificates.by_host.len()).finish_non_exhaustive()
    }
}

/// Returns the leaf's last second.
fn check_leaf(index: usize, hosts: &[HostPattern], key: &CertifiedKey, now: i64) -> Result<i64, OneWayError> {
    let unreadable = |why: String| OneWayError::Unreadable { index, why };
    let leaf = key.end_entity_cert().map_err(|error| unreadable(error.to_string()))?;
    let parsed = ParsedCertificate::try_from(leaf).map_err(|error| unreadable(error.to_string()))?;
    for host in hosts {
        let name = ServerName::try_from(host.example()).map_err(|error| unreadable(error.to_string()))?;
        if rustls::client::verify_server_name(&parsed, &name).is_err() {
            return Err(OneWayError::Host { index, host: host.clone() });
        }
    }
    let not_after_unix =
        portcullis_identity::summary(leaf).map_err(|error| unreadable(error.to_string()))?.not_after_unix;
    if not_after_unix < now {
        return Err(OneWayError::Expired { index, not_after_unix });
    }
    Ok(not_after_unix)
}

fn template(parts: &OneWayParts, clock: &Clock, certificates: Arc<Certificates>) -> Result<ServerConfig, OneWayError> {
    let tls = |error: &dyn fmt::Display| OneWayError::Tls(error.to_string());
    let clients: Arc<dyn ClientCertVerifier> = match &parts.client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(file) => {
            let roots = Arc::new(chosen_roots(file).map_err(OneWayError::ClientCa)?);
            WebPkiClientVerifier::builder_with_provider(roots, provider()).build().map_err(|error| tls(&error))?
        }
    };
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(parts.min_version.versions())
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(ByName::new(certificates)));
    // As for the mesh: no resumption, no early data, and no opinion about the app's protocol.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    config.enable_secret_extraction = true;
    config.alpn_protocols = Vec::new();
    Ok(config)
}

/// Chooses the certificate of one connection, and notes what the client asked for.
#[derive(Debug)]
struct ByName {
    certificates: Arc<Certificates>,
    asked: OnceLock<Option<String>>,
    alert: Arc<RefusalAlert>,
}

impl ByName {
    fn new(certificates: Arc<Certificates>) -> Self {
        Self { certificates, asked: OnceLock::new(), alert: Arc::default() }
    }

    /// What the client asked for, if no certificate was found for it.
    fn refused(&self) -> Option<Option<String>> {
        self.alert.get().and_then(|_| self.asked.get().cloned())
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        let chosen = self.certificates.choose(name).cloned();
        // After a HelloRetryRequest it is asked again; the name may not differ then.
        let asked = self.asked.get_or_init(|| name.map(str::to_owned));
        let chosen = chosen.filter(|_| asked.as_deref() == name);
        if chosen.is_none() {
            self.alert.set(AlertDescription::UnrecognisedName);
        }
        chosen
    }
}

/// The client of an established connection. It has no identity in the mesh, whatever certificate it presented.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneWayInfo {
    /// The server name that it sent, in lower case.
    pub sni: Option<String>,
    /// Version, cipher suite and group.
    pub negotiated: Negotiated,
}

/// Runs the server's side of a handshake with a client outside of the mesh.
///
/// The caller sets the deadline. After a refusal the alert has been sent and our direction is closed; for a name without
/// certificate it is `unrecognized_name`.
///
/// # Errors
/// Why the handshake failed.
pub async fn accept_one_way<IO>(io: IO, server: &OneWayServer) -> Result<(Stream<IO>, OneWayInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let secrets = Arc::new(TrafficSecretLog::default());
    let by_name = Arc::new(ByName::new(Arc::clone(&server.certificates)));
    let mut config = server.template.clone();
    config.key_log = Arc::clone(&secrets) as _;
    config.cert_resolver = Arc::clone(&by_name) as _;
    let session = UnbufferedServerConnection::new(Arc::new(config)).map_err(HandshakeError::Protocol)?;
    let mut stream = Stream::new(io, Session::server(session, secrets).with_refusal(Arc::clone(&by_name.alert)));
    if let Err(error) = handshake(&mut stream).await {
        return Err(match by_name.refused() {
            Some(asked) => HandshakeError::UnknownServerName(asked),
            None => HandshakeError::outside(error),
        });
    }
    let negotiated = stream.state().map(Negotiated::of);
    // rustls runs the session until the record layer takes over, so its state is there.
    let negotiated = negotiated.ok_or(HandshakeError::Protocol(Error::HandshakeNotComplete))?;
    let sni = by_name.asked.get().cloned().flatten();
    Ok((stream.established().map_err(HandshakeError::Protocol)?, OneWayInfo { sni, negotiated }))
}
