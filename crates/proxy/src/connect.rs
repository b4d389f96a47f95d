//! Outbound: from a destination to an open connection, over mTLS, TLS or in plaintext. There is never a fallback from one to the other.

mod endpoint;
mod failed;
mod service;
mod tunnel;

use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::client::{Sni, connect_corked};
use portcullis_tls::{Credentials, PathSummary, Unavailable};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::destination::{Destination, OutboundTarget};
use crate::downgrade::MtlsDestination;
use crate::outbound_hbone;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{MeshStream, dial, dial_host, record_peer};
use crate::resolved_route::ResolvedRoute;
use crate::routing_decision::RoutingDecision;
use crate::state::ProxyState;
use failed::{Failed, Next, handshake_failed};
use service::to_service;

/// An open connection to the destination.
pub(crate) struct Connected {
    pub(crate) server: MeshStream<TcpStream>,
    /// What the trust in a mesh peer rests on.
    pub(crate) path: Option<PathSummary>,
    /// What to ask after a change; none for what the configuration fixes.
    pub(crate) routing: Option<Box<RoutingDecision>>,
}

/// An open stream to the destination, and what the trust in its peer rests on.
struct UpstreamConn {
    stream: MeshStream<TcpStream>,
    /// None without mTLS.
    path: Option<PathSummary>,
}

impl UpstreamConn {
    const fn without_mtls(stream: MeshStream<TcpStream>) -> Self {
        Self { stream, path: None }
    }

    fn mtls(stream: MeshStream<TcpStream>, path: PathSummary) -> Self {
        Self { stream, path: Some(path) }
    }
}

type OwnCredentials = Result<Arc<Credentials>, Unavailable>;

/// Connects, and records how.
pub(crate) async fn connect(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    destination: &Destination,
    credentials: OwnCredentials,
    record: &mut ConnRecord,
) -> Result<Connected, Ending> {
    match destination {
        Destination::Fixed(route) => {
            let UpstreamConn { stream, path } = to_route(state, target, route, credentials, record).await?;
            Ok(Connected { server: stream, path, routing: None })
        }
        Destination::Unknown(route) => {
            if let OutboundTarget::Captured(address) = target {
                check_downgrade(state, &[MtlsDestination::Address(*address)], "unknown_destination")?;
            }
            let UpstreamConn { stream, path } = to_route(state, target, route, credentials, record).await?;
            let address = record.dst_addr;
            if let (Some(address), MeshStream::Raw(_)) = (address, &stream) {
                state.undeclared.note(address, &state.metrics);
            }
            let routing = address.map(|address| Box::new(RoutingDecision::unknown(target.clone(), address)));
            Ok(Connected { server: stream, path, routing })
        }
        Destination::Service(table) => to_service(state, target, table, credentials, record).await,
    }
}

/// As the configuration says.
async fn to_route(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    route: &ResolvedRoute,
    credentials: OwnCredentials,
    record: &mut ConnRecord,
) -> Result<UpstreamConn, Ending> {
    record.mode = match &route.mode {
        RouteMode::Mtls(_) => "mtls",
        RouteMode::Hbone(_) => "hbone",
        RouteMode::Plaintext => "plaintext",
    };
    record.service.clone_from(&route.service);
    let secured = match &route.mode {
        // Before the dial: a peer that sees a connection open and close would look for the fault on its own side.
        RouteMode::Mtls(expected) => Some((expected, credentials.map_err(outcome::no_identity)?)),
        RouteMode::Hbone(expected) => {
            let credentials = credentials.map_err(outcome::no_identity)?;
            let (stream, path) = outbound_hbone::connect(state, target, expected, &credentials, record).await?;
            remember_addresses(state, target, record);
            return Ok(UpstreamConn::mtls(MeshStream::Tunneled(Box::new(stream)), path));
        }
        RouteMode::Plaintext => None,
    };
    let within = state.settings.timeouts.connect;
    let (dialled, port) = match target {
        // A whole socket address, since a link-local address needs its scope.
        OutboundTarget::Captured(address) => (dial(*address, within).await, address.port()),
        OutboundTarget::Configured(upstream) => {
            (dial_host(&state.destinations.names, &upstream.host, upstream.port, within).await, upstream.port)
        }
    };
    let server = dialled.map_err(|error| outcome::unreachable(DialTarget::Peer, target, &error))?;
    check_loop(state, &server, record)?;
    let Some((expected, credentials)) = secured else {
        record.transport = "plaintext";
        return Ok(UpstreamConn::without_mtls(MeshStream::Raw(server)));
    };
    let secured = secure(state, server, &credentials, expected, route.sni(port).as_ref(), record).await;
    let upstream = secured.map_err(|failed| failed.ending)?;
    remember_addresses(state, target, record);
    Ok(upstream)
}

/// The addresses of a destination that was reached over mTLS: what was dialled, and what the app dialled.
fn remember_addresses(state: &ProxyState, target: &OutboundTarget, record: &ConnRecord) {
    let captured = match target {
        OutboundTarget::Captured(address) => Some(*address),
        OutboundTarget::Configured(_) => None,
    };
    for address in record.dst_addr.into_iter().chain(captured) {
        state.seen_over_mtls.record(MtlsDestination::Address(address));
    }
}

/// A connection to an outbound listener of this proxy would be an endless loop.
fn check_loop(state: &ProxyState, server: &TcpStream, record: &mut ConnRecord) -> Result<(), Ending> {
    let peer = server.peer_addr().ok();
    record.dst_addr = peer.or(record.dst_addr);
    match peer.filter(|peer| state.is_own_outbound(*peer)) {
        Some(peer) => Err(Ending::new(Reason::Loop, Some(peer.to_string()))),
        None => Ok(()),
    }
}

fn check_downgrade(state: &ProxyState, names: &[MtlsDestination], why: &'static str) -> Result<(), Ending> {
    let count = |action| state.metrics.downgrades.with(&[action]).add(1);
    state.seen_over_mtls.check(names, why, state.settings.outbound.downgrade, count)
}

/// The mTLS handshake with a mesh peer.
async fn secure(
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
