//! Outbound: from a dialled connection to the expected workload.

use std::net::Ipv4Addr;
use std::sync::Arc;

use portcullis_identity::ExpectedIds;
use rustls::client::UnbufferedClientConnection;
use rustls_pki_types::{DnsName, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use crate::credentials::Credentials;
use crate::handshake::{HandshakeError, PeerInfo};
use crate::server::established;
use crate::session::Session;
use crate::stream::Stream;
use crate::verifier::{Expect, PeerVerifier};
use portcullis_record::TrafficSecretLog;

/// A server name to send, for routers on the path. It does not affect which server is accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sni(DnsName<'static>);

/// A text that cannot be sent as a server name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a host name that TLS can carry")]
pub struct SniError;

impl Sni {
    /// Parses a host name; Istio's form (`outbound_.8080_._.cart.shop.svc.cluster.local`) is one.
    ///
    /// # Errors
    /// When TLS cannot carry it.
    pub fn parse(name: &str) -> Result<Self, SniError> {
        DnsName::try_from(name.to_owned()).map(Self).map_err(|_| SniError)
    }
}

/// Runs the client's side of a handshake. The server must be one of the expected workloads.
///
/// The caller sets the deadline. In TLS 1.3 the server verifies our certificate only after this has returned: a refusal is
/// reported by the first read, see [`StreamFault::PeerAlert`](crate::StreamFault::PeerAlert).
///
/// # Errors
/// Why the handshake failed.
pub async fn connect<IO>(
    io: IO,
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
    sni: Option<&Sni>,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut stream, peer) = connect_corked(io, credentials, expected, sni).await?;
    match stream.flush().await {
        Ok(()) => Ok((stream, peer)),
        Err(error) => Err(HandshakeError::from_io(error)),
    }
}

/// As [`connect`], but the client's last flight is not sent yet: it goes with the first bytes that are written, in one packet, or
/// is sent by the first read or flush. The server waits for it, so one of them should follow soon.
///
/// # Errors
/// Why the handshake failed.
pub async fn connect_corked<IO>(
    io: IO,
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
    sni: Option<&Sni>,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    connect_protocol(io, credentials, expected, sni, None).await
}

/// As [`connect_corked`], for HBONE: the name of the protocol is `h2`, and no server name is sent.
///
/// # Errors
/// Why the handshake failed.
pub async fn connect_hbone<IO>(
    io: IO,
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    connect_protocol(io, credentials, expected, None, Some(portcullis_wire::HBONE_ALPN)).await
}

async fn connect_protocol<IO>(
    io: IO,
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
    sni: Option<&Sni>,
    alpn: Option<&[u8]>,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(credentials), Expect::OneOf(expected.clone())));
    let secrets = Arc::new(TrafficSecretLog::default());
    let mut config = credentials.client_config(Arc::clone(&verifier), Arc::clone(&secrets), sni.is_some());
    if let Some(alpn) = alpn {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    // rustls requires a name; the verifier ignores it, and an address is never sent.
    let name = match sni {
        Some(Sni(name)) => ServerName::DnsName(name.clone()),
        None => ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()),
    };
    let session = UnbufferedClientConnection::new(Arc::new(config), name).map_err(HandshakeError::Protocol)?;
    established(Stream::new(io, Session::client(session, secrets)), &verifier).await
}
