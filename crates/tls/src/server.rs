//! The inbound half: from an accepted connection to a verified client.

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
/// There is no deadline in here; the caller has one. After a refusal the alert is on its way and our direction is closed.
///
/// # Errors
/// Why there is no connection.
pub async fn accept<IO>(io: IO, credentials: &Arc<Credentials>) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let verifier = Arc::new(PeerVerifier::new(Arc::clone(credentials), Expect::AnyWorkload));
    let secrets = Arc::new(TrafficSecretLog::default());
    let config =
        credentials.server_config(Arc::clone(&verifier), Arc::clone(&secrets)).map_err(HandshakeError::Protocol)?;
    let session = UnbufferedServerConnection::new(Arc::new(config)).map_err(HandshakeError::Protocol)?;
    established(Stream::new(io, Session::server(session, secrets)), &verifier).await
}

/// Runs a handshake to its end; what is handed out has a peer that was verified in it.
pub(crate) async fn established<IO>(
    mut stream: Stream<IO>,
    verifier: &PeerVerifier,
) -> Result<(Stream<IO>, PeerInfo), HandshakeError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = stream.handshake().await {
        // The alert has been written; what becomes of the FIN does not matter any more.
        let _ = stream.get_mut().shutdown().await;
        return Err(HandshakeError::new(error, verifier));
    }
    let peer = peer(verifier, stream.state())?;
    Ok((stream.established().map_err(HandshakeError::Protocol)?, peer))
}

/// The verdict of a handshake that succeeded.
fn peer(verifier: &PeerVerifier, state: Option<&rustls::CommonState>) -> Result<PeerInfo, HandshakeError> {
    match (verifier.verdict(), state) {
        (Some(Ok(verified)), Some(state)) => Ok(PeerInfo::new(verified.clone(), state)),
        // rustls completed a handshake without asking the verifier: never an identity, whatever the cause.
        _ => Err(HandshakeError::Protocol(rustls::Error::NoCertificatesPresented)),
    }
}
