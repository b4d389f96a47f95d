//! An open connection to a destination, and the checks and the handshake that every way to one shares.

use std::sync::Arc;

use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::client::{Sni, connect_corked};
use portcullis_tls::{Credentials, PathSummary, Unavailable};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::failed::{Failed, Next, handshake_failed};
use crate::destination::OutboundTarget;
use crate::downgrade::MtlsDestination;
use crate::outcome::Reason;
use crate::relay::{MeshStream, record_peer};
use crate::routing_decision::RoutingDecision;
use crate::state::ProxyState;

/// An open connection to the destination.
pub(crate) struct Connected {
    pub(crate) server: MeshStream<TcpStream>,
    /// What the trust in a mesh peer rests on.
    pub(crate) path: Option<PathSummary>,
    /// What to ask after a change; none for what the configuration fixes.
    pub(crate) routing: Option<Box<RoutingDecision>>,
}

/// An open stream to the destination, and what the trust in its peer rests on.
pub(super) struct UpstreamConn {
    pub(super) stream: MeshStream<TcpStream>,
    /// None without mTLS.
    pub(super) path: Option<PathSummary>,
}

impl UpstreamConn {
    pub(super) const fn without_mtls(stream: MeshStream<TcpStream>) -> Self {
        Self { stream, path: None }
    }

    pub(super) fn mtls(stream: MeshStream<TcpStream>, path: PathSummary) -> Self {
        Self { stream, path: Some(path) }
    }
}

pub(super) type OwnCredentials = Result<Arc<Credentials>, Unavailable>;

/// The addresses of a destination that was reached over mTLS: what was dialled, and what the app dialled.
pub(super) fn remember_addresses(state: &ProxyState, target: &OutboundTarget, record: &ConnRecord) {
    let captured = match target {
        OutboundTarget::Captured(address) => Some(*address),
        OutboundTarget::Configured(_) => None,
    };
    for address in record.dst_addr.into_iter().chain(captured) {
        state.seen_over_mtls.record(MtlsDestination::Address(address));
    }
}

/// A connection to an outbound listener of this proxy would be an endless loop.
pub(super) fn check_loop(state: &ProxyState, server: &TcpStream, record: &mut ConnRecord) -> Result<(), Ending> {
    let peer = server.peer_addr().ok();
    record.dst_addr = peer.or(record.dst_addr);
    match peer.filter(|peer| state.is_own_outbound(*peer)) {
        Some(peer) => Err(Ending::new(Reason::Loop, Some(peer.to_string()))),
        None => Ok(()),
    }
}

pub(super) fn check_downgrade(state: &ProxyState, names: &[MtlsDestination], why: &'static str) -> Result<(), Ending> {
    let count = |action| state.metrics.downgrades.with(&[action]).add(1);
    state.seen_over_mtls.check(names, why, state.settings.outbound.downgrade, count)
}

/// The mTLS handshake with a mesh peer.
pub(super) async fn secure(
    state: &ProxyState,
    server: TcpStream,
    credentials: &Arc<Credentials>,
    expected: &ExpectedIds,
    sni: Option<&Sni>,
    record: &mut ConnRecord,
) -> Result<UpstreamConn, Failed> {
    record.transport = "tls";
    let began = Instant::now();
    // The relay writes or reads next, which sends what is corked.
    let handshake = connect_corked(server, credentials, expected, sni);
    let (stream, peer) = match timeout(state.settings.timeouts.handshake, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(handshake_failed(&error)),
        Err(_elapsed) => {
            return Err(Failed { ending: Ending::new(Reason::HandshakeTimeout, None), next: Next::TooLate });
        }
    };
    record_peer(state, record, &peer, began);
    Ok(UpstreamConn::mtls(MeshStream::Secured(stream), peer.path))
}
