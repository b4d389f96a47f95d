//! The clients: a plain one, and one that speaks mesh TLS but has no certificate.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_tls::provider;
use portcullis_wire::CLIENT_ALPN;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The deadline for each step of a client.
const TIMEOUT: Duration = Duration::from_secs(5);
const LINE: u64 = 1024;

/// What a client received for its line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Got {
    /// An answer.
    Answer(String),
    /// The end of the connection, and how it looked.
    End(String),
}

/// Sends a line in plaintext. An outbound sidecar at `address` originates mTLS.
pub(super) fn plain(address: SocketAddr, line: &str) -> anyhow::Result<Got> {
    Ok(connect(address)?.map_or_else(Got::from, |stream| exchange(stream, line)))
}

/// Sends a line over TLS that offers Istio's ALPN name and presents no certificate.
pub(super) fn without_certificate(address: SocketAddr, line: &str) -> anyhow::Result<Got> {
    let provider = provider();
    let verifier =
        Arc::new(AcceptAnyServer { schemes: provider.signature_verification_algorithms.supported_schemes() });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![CLIENT_ALPN.to_vec()];
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("cart.invalid")?)?;
    Ok(connect(address)?.map_or_else(Got::from, |stream| exchange(StreamOwned::new(connection, stream), line)))
}

/// Connects. A sidecar can refuse so early that connecting fails already: that is an outcome, not a failure of the demo.
fn connect(address: SocketAddr) -> anyhow::Result<io::Result<TcpStream>> {
    let stream = match TcpStream::connect_timeout(&address, TIMEOUT) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(Err(error)),
        other => other.with_context(|| format!("cannot connect to {address}"))?,
    };
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(Ok(stream))
}

/// In TLS 1.3 a refused client learns of it only when it reads, so every client reads.
fn exchange(mut stream: impl Read + Write, line: &str) -> Got {
    if let Err(error) = writeln!(stream, "{line}").and_then(|()| stream.flush()) {
        return error.into();
    }
    let mut answer = String::new();
    match BufReader::new(stream).take(LINE).read_line(&mut answer) {
        Ok(0) => Got::End("closed".to_owned()),
        Ok(_) => Got::Answer(answer.trim_end().to_owned()),
        Err(error) => error.into(),
    }
}

impl From<io::Error> for Got {
    fn from(error: io::Error) -> Self {
        Self::End(error.to_string())
    }
}

/// Accepts any server. For the attacker's client of the demo only; nothing else in this program may use it.
#[derive(Debug)]
struct AcceptAnyServer {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AcceptAnyServer {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Only TLS 1.3 is offered.
        Err(CertificateError::BadSignature.into())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
