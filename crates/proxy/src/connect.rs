//! Outbound: from a destination to an open connection, over mTLS, TLS or in plaintext. There is never a fallback from one to the other.

mod endpoint;
mod failed;
mod service;
mod tunnel;
mod upstream_conn;

use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_telemetry::{ConnRecord, Ending};

use crate::destination::{Destination, OutboundTarget};
use crate::downgrade::MtlsDestination;
use crate::outbound_hbone;
use crate::outcome::{self, DialTarget};
use crate::relay::{MeshStream, dial, dial_host};
use crate::resolved_route::ResolvedRoute;
use crate::routing_decision::RoutingDecision;
use crate::state::ProxyState;
use service::to_service;
pub(crate) use upstream_conn::Connected;
use upstream_conn::{OwnCredentials, UpstreamConn, check_downgrade, check_loop, remember_addresses, secure};

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
