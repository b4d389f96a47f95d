//! Inbound: from an accepted connection to a verified client.

use std::io;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::credentials::Credentials;
use crate::handshake::{HandshakeError, PeerInfo};
use crate::session::Session;
use crate::stream::Stream;
use crate::verifier::{Expect, PeerVerifier};
use portcullis_record::TrafficSecretLog;

/// Runs the server's side of a handshake. The client must present a certificate of a trusted domain.
///
/// The caller sets the deadline. After a refusal the alert has been sent and our direction is closed.
///
/// # Errors
/// Why the handshake failed.
pub async fn accept<IO>(io: IO, credentials: &Arc<Credentials>) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    // No list: a client is never refused for the ALPN names that it offers.
    accept_protocols(io, credentials, &[]).await
}

/// As [`accept`], for HBONE: a client that offers ALPN names must offer `h2`; one that offers none is taken at its word.
///
/// # Errors
/// Why the handshake failed.
pub async fn accept_hbone<IO>(io: IO, credentials: &Arc<Credentials>) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    accept_protocols(io, credentials, &[portcullis_wire::HBONE_ALPN]).await
}

async fn accept_protocols<IO>(
    io: IO,
    credentials: &Arc<Credentials>,
    alpn: &[&[u8]],
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(credentials), Expect::AnyWorkload));
    let secrets = Arc::new(TrafficSecretLog::default());
    let config = credentials
        .server_config(Arc::clone(&verifier), Arc::clone(&secrets), alpn)
        .map_err(HandshakeError::Protocol)?;
    let session = UnbufferedServerConnection::new(Arc::new(config)).map_err(HandshakeError::Protocol)?;
    established(Stream::new(io, Session::server(session, secrets)), &verifier).await
}

/// Completes a handshake. The returned peer was verified in it.
pub(crate) async fn established<IO>(
    mut stream: Stream<IO>,
    verifier: &PeerVerifier,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    handshake(&mut stream).await.map_err(|error| HandshakeError::new(error, verifier))?;
    let peer = peer(verifier, stream.state())?;
    Ok((stream.established().map_err(HandshakeError::Protocol)?, peer))
}

/// Runs a handshake to its end. After an error the alert has been sent, and our direction is closed.
pub(crate) async fn handshake<IO>(stream: &mut Stream<IO>) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let result = stream.handshake().await;
    if result.is_err() {
        // The alert has been written. Whether the FIN gets through does not matter.
        let _ = stream.get_mut().shutdown().await;
    }
    result
}

/// The peer of a completed handshake.
fn peer(verifier: &PeerVerifier, state: Option<&rustls::CommonState>) -> Result<PeerInfo, HandshakeError> {
    match (verifier.outcome(), state) {
        (Some(Ok(verified)), Some(state)) => Ok(PeerInfo::new(verified.clone(), state)),
        // rustls completed a handshake without the verifier: there is no identity, whatever the cause.
        _ => Err(HandshakeError::Protocol(rustls::Error::NoCertificatesPresented)),
    }
}
