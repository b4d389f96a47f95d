//! TLS to a service outside of the mesh: as a client that verifies the server as a browser does, and presents a certificate only if
//! the service wants one (Istio's modes SIMPLE and MUTUAL).
//!
//! The server's certificate is always verified. There is no setting that skips it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_record::TrafficSecretLog;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    Resumption, UnbufferedClientConnection, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
    verify_server_name,
};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, Error, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use webpki::EndEntityCert;

use crate::clock::Clock;
use crate::credentials::MinVersion;
use crate::handshake::HandshakeError;
use crate::negotiated::Negotiated;
use crate::outside::{KeyPairError, OutsideRefusal, RootsError, chosen_roots, key_pair, listed, system_roots};
use crate::provider::{SIGNATURES, provider};
use crate::server::handshake;
use crate::session::Session;
use crate::stream::Stream;

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug)]
pub enum Roots<'a> {
    /// A file that was chosen for this service, in PEM: every certificate must be usable as a root.
    Chosen(&'a [u8]),
    /// The system's roots, read once for all who trust them.
    System(&'a SystemRoots),
}

/// The roots that a system trusts. Clones share them: a system has more than a hundred.
#[derive(Clone, Debug)]
pub struct SystemRoots(Arc<RootCertStore>);

impl SystemRoots {
    /// Reads a file in PEM. Certificates that cannot be roots are left out.
    ///
    /// # Errors
    /// It is not a list of certificates, or none of them can be a root.
    pub fn from_pem(file: &[u8]) -> Result<Self, RootsError> {
        system_roots(file).map(|store| Self(Arc::new(store)))
    }
}

/// What an external service is called with. Files are given by their content.
#[derive(Clone, Copy)]
pub struct OriginationParts<'a> {
    /// Whose certificates are trusted.
    pub ca: Roots<'a>,
    /// Our own chain and key in PEM, for a service that wants a certificate.
    pub client: Option<(&'a [u8], &'a [u8])>,
    /// Names of which the server's certificate must have one: host names, addresses or URIs. Without any, it must be for `sni`.
    pub subject_alt_names: &'a [String],
    /// The host name to send, or the address that is called, which is never sent.
    pub sni: &'a str,
    /// The lowest version that the server may choose.
    pub min_version: MinVersion,
}

impl fmt::Debug for OriginationParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OriginationParts").field("sni", &self.sni).finish_non_exhaustive()
    }
}

/// Why an external service cannot be called like this.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OriginationError {
    /// The roots cannot be used.
    #[error("caCertificates: {0}")]
    Roots(#[from] RootsError),
    /// Our own certificate cannot be used.
    #[error("client certificate: {0}")]
    Client(#[from] KeyPairError),
    /// It is neither a host name nor an address.
    #[error("sni: \"{0}\" is neither a host name nor an address")]
    ServerName(String),
    /// It cannot be the name of a certificate.
    #[error("subjectAltNames: \"{0}\" is no host name, address or URI; patterns are not supported")]
    SubjectAltName(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// How one external service is called: prepared once, used for every connection.
#[derive(Clone)]
pub struct Originator {
    config: ClientConfig,
    name: ServerName<'static>,
}

/// The server of an established connection. Its certificate was verified in the handshake.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerInfo {
    /// Version, cipher suite and group.
    pub negotiated: Negotiated,
}

impl Originator {
    /// Reads and checks everything that does not depend on a connection.
    ///
    /// # Errors
    /// The first error.
    pub fn new(parts: &OriginationParts<'_>, clock: &Clock) -> Result<Self, OriginationError> {
        let roots = match parts.ca {
            Roots::Chosen(file) => Arc::new(chosen_roots(file)?),
            Roots::System(SystemRoots(roots)) => Arc::clone(roots),
        };
        let name = ServerName::try_from(parts.sni.to_owned())
            .map_err(|_| OriginationError::ServerName(parts.sni.to_owned()))?;
        let verifier = verifier(roots, parts.subject_alt_names)?;
        let builder = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
            .with_protocol_versions(parts.min_version.versions())
            .map_err(tls)?
            // The name of the interface. The verifier below checks chain, time, usage and name, with webpki.
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match parts.client {
            Some((chain, key)) => builder.with_client_cert_resolver(key_pair(chain, key)?.0),
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_secret_extraction = true;
        // The bytes are the app's, in whatever protocol.
        config.alpn_protocols = Vec::new();
        Ok(Self { config, name })
    }
}

impl fmt::Debug for Originator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Originator").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Runs the client's side of a handshake with an external service.
///
/// The caller sets the deadline. The client's last flight is not sent yet: it goes with the first bytes that are written, in one
/// packet, or is sent by the first read or flush. In TLS 1.3 the server verifies our certificate only after this has returned: a
/// refusal is reported by the first read, see [`StreamFault::PeerAlert`](crate::StreamFault::PeerAlert).
///
/// # Errors
/// Why the handshake failed.
pub async fn originate<IO>(io: IO, originator: &Originator) -> Result<(Stream<IO>, ServerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let secrets = Arc::new(TrafficSecretLog::default());
    let mut config = originator.config.clone();
    config.key_log = Arc::clone(&secrets) as _;
    let session =
        UnbufferedClientConnection::new(Arc::new(config), originator.name.clone()).map_err(HandshakeError::Protocol)?;
    let mut stream = Stream::new(io, Session::client(session, secrets));
    handshake(&mut stream).await.map_err(HandshakeError::outside)?;
    let negotiated = stream.state().map(Negotiated::of);
    // rustls runs the session until the record layer takes over, so its state is there.
    let negotiated = negotiated.ok_or(HandshakeError::Protocol(Error::HandshakeNotComplete))?;
    Ok((stream.established().map_err(HandshakeError::Protocol)?, ServerInfo { negotiated }))
}

fn tls(error: impl fmt::Display) -> OriginationError {
    OriginationError::Tls(error.to_string())
}

fn verifier(roots: Arc<RootCertStore>, names: &[String]) -> Result<Arc<dyn ServerCertVerifier>, OriginationError> {
    if names.is_empty() {
        return Ok(WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(tls)?);
    }
    let names = names.iter().map(|name| SubjectAltName::parse(name)).collect::<Result<_, _>>()?;
    Ok(Arc::new(AnyOfNames { roots, names }))
}

/// A name that the server's certificate may have.
#[derive(Clone, Debug)]
enum SubjectAltName {
    /// A host name or address, compared as webpki does: a wildcard in the certificate stands for one label.
    Server(ServerName<'static>),
    /// Compared byte for byte.
    Uri(String),
}

impl SubjectAltName {
    fn parse(text: &str) -> Result<Self, OriginationError> {
        let refused = || OriginationError::SubjectAltName(text.to_owned());
        // An IPv6 address has colons too, but no scheme before the first of them that is followed by something else.
        if text.parse::<IpAddr>().is_err() && text.contains(':') {
            let is_uri = text.split_once(':').is_some_and(|(scheme, rest)| is_scheme(scheme) && !rest.is_empty())
                && text.bytes().all(|byte| byte.is_ascii_graphic());
            return if is_uri { Ok(Self::Uri(text.to_owned())) } else { Err(refused()) };
        }
        ServerName::try_from(text.to_owned()).map(Self::Server).map_err(|_| refused())
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// Verifies the chain as [`WebPkiServerVerifier`] does, and then that the certificate has one of the names.
#[derive(Debug)]
struct AnyOfNames {
    roots: Arc<RootCertStore>,
    /// At least one.
    names: Vec<SubjectAltName>,
}

impl AnyOfNames {
    fn check_name(&self, certificate: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>) -> Result<(), Error> {
        let entity = EndEntityCert::try_from(certificate).map_err(|_| CertificateError::BadEncoding)?;
        let mut presented: Vec<String> = entity.valid_uri_names().map(str::to_owned).collect();
        for name in &self.names {
            match name {
                SubjectAltName::Uri(uri) if presented.contains(uri) => return Ok(()),
                SubjectAltName::Server(name) if verify_server_name(parsed, name).is_ok() => return Ok(()),
                SubjectAltName::Uri(_) | SubjectAltName::Server(_) => {}
            }
        }
        presented.extend(entity.valid_dns_names().map(str::to_owned));
        let expected: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        let refusal = OutsideRefusal::Name { expected: listed(&expected), presented: listed(&presented) };
        Err(CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }
}

impl ServerCertVerifier for AnyOfNames {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, SIGNATURES.all)?;
        self.check_name(end_entity, &parsed)?;
        Ok(ServerCertVerified::assertion())
    }

    crate::signatures::signature_verification!();
}

#[cfg(test)]
mod tests {
    use portcullis_testkit::certs::{Authority, Profile};

    use super::*;

    #[test]
    fn the_roots_of_the_system_are_shared() {
        let authority =
            Authority::self_signed(&Profile { sans: None, ..Profile::authority("unused", "CN=a CA of the web") });
        let roots = SystemRoots::from_pem(authority.bundle_pem().as_bytes()).unwrap();
        let originator = |names: &[String]| {
            let parts = OriginationParts {
                ca: Roots::System(&roots),
                client: None,
                subject_alt_names: names,
                sni: "shop.example.com",
                min_version: MinVersion::Tls12,
            };
            Originator::new(&parts, &Clock::system()).unwrap()
        };
        let _originators = [originator(&[]), originator(&["other.example.com".to_owned()])];
        // One of ours, and one of each originator.
        assert_eq!(Arc::strong_count(&roots.0), 3);
    }
}
