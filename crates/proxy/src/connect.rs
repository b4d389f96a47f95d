//! Outbound: from a destination to an open connection, over mTLS, TLS or in plaintext. There is never a fallback from one to the other.

mod failed;
mod tunnel;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_dns::LOOKUP_TIMEOUT;
use portcullis_identity::ExpectedIds;
use portcullis_policy::directory::{EVERY_PORT, Found, Lookup, MtlsReason, PlaintextReason, Transport};
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::client::{Sni, connect_corked};
use portcullis_tls::{Credentials, Originator, PathSummary, Unavailable, originate};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::balancer::{self, OutlierSettings};
use crate::destination::{Destination, OutboundTarget};
use crate::downgrade::MtlsDestination;
use crate::endpoints::{self, Dialable};
use crate::outbound_hbone;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{MeshStream, dial, dial_host, record_peer};
use crate::resolved_route::ResolvedRoute;
use crate::routing_decision::{RoutingDecision, UpstreamTransport};
use crate::services::ServiceTable;
use crate::state::ProxyState;
use failed::{Failed, Next, handshake_failed};
use tunnel::through_tunnel;

/// How many endpoints of a service are tried for one connection.
const MAX_ATTEMPTS: usize = 3;

/// An open connection to the destination.
pub(crate) struct Connected {
    pub(crate) server: MeshStream<TcpStream>,
    /// What the trust in a mesh peer rests on.
    pub(crate) path: Option<PathSummary>,
    /// What to ask after a change; none for what the configuration fixes.
    pub(crate) routing: Option<Box<RoutingDecision>>,
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
            let (server, path) = to_route(state, target, route, credentials, record).await?;
            Ok(Connected { server, path, routing: None })
        }
        Destination::Unknown(route) => {
            if let OutboundTarget::Captured(address) = target {
                check_downgrade(state, &[MtlsDestination::Address(*address)], "unknown_destination")?;
            }
            let (server, path) = to_route(state, target, route, credentials, record).await?;
            let address = record.dst_addr;
            let routing = address.map(|address| Box::new(RoutingDecision::unknown(target.clone(), address)));
            Ok(Connected { server, path, routing })
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
) -> Result<(MeshStream<TcpStream>, Option<PathSummary>), Ending> {
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
            return Ok((MeshStream::Tunneled(Box::new(stream)), Some(path)));
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
        return Ok((MeshStream::Raw(server), None));
    };
    let secured = secure(state, server, &credentials, expected, route.sni(port).as_ref(), record).await;
    let (stream, path) = secured.map_err(|failed| failed.ending)?;
    remember_addresses(state, target, record);
    Ok((stream, Some(path)))
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

/// A service of the directory, as it was found.
struct ServiceTarget<'t> {
    target: &'t OutboundTarget,
    table: &'t ServiceTable,
    host: Arc<str>,
    peer: MtlsDestination,
    /// Whether an endpoint of it is secured.
    is_secured: bool,
}

/// To one of the endpoints of a service: another one only if no byte of the app was sent, and never after a refused certificate.
async fn to_service(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    table: &ServiceTable,
    credentials: OwnCredentials,
    record: &mut ConnRecord,
) -> Result<Connected, Ending> {
    let Lookup::Found(found) = state.destinations.in_directory(target, table) else {
        // A name moved between two look-ups.
        return Err(Ending::new(Reason::NoEndpoint, Some(target.to_string())));
    };
    let names = table.names(found.service);
    record.service = Some(names.metrics);
    let mut endpoints = endpoints::dialable(target, &found, &**state.destinations.names.table());
    let number = if found.port.number == EVERY_PORT { target.port() } else { found.port.number };
    let peer = MtlsDestination::Service(Arc::clone(&names.host), number);
    let settings = found.port.outlier_detection.map_or_else(OutlierSettings::default, OutlierSettings::from);
    let candidates = |endpoints: &[Dialable<'_>]| {
        let specs = endpoints.iter().map(Dialable::spec);
        state.endpoints.candidates(&names.host, found.port.number, specs, Instant::now())
    };
    let (mut known, mut turn) = candidates(&endpoints);
    let is_secured = found.choice.endpoints().iter().any(|endpoint| endpoint.transport.is_secured());
    let service = ServiceTarget { target, table, host: Arc::clone(&names.host), peer, is_secured };
    let mut random = fastrand::Rng::new();
    let mut tried = Vec::new();
    let mut failed: Option<Ending> = None;
    let mut is_fresh = false;
    while tried.len() < MAX_ATTEMPTS {
        let chosen = balancer::pick(&known, &tried, found.port.load_balancer, turn, &mut random, Instant::now());
        let Some(index) = chosen else {
            // What is known of the names may be older than the endpoints are.
            if std::mem::replace(&mut is_fresh, true) {
                break;
            }
            endpoints = look_up_endpoints(state, target, &found).await;
            (known, turn) = candidates(&endpoints);
            continue;
        };
        let (Some(endpoint), Some(candidate)) = (endpoints.get(index), known.get(index)) else { break };
        let active = candidate.state.enter();
        // What a look-up for this connection has found is fresh.
        let endpoint = &Dialable { name: endpoint.name.filter(|_| !is_fresh), ..*endpoint };
        match to_endpoint(state, &service, endpoint, &credentials, record).await {
            Ok((server, path, reached)) => {
                candidate.state.count_success();
                let routing =
                    RoutingDecision::service(target.clone(), endpoint.address, &service.peer, reached, active);
                return Ok(Connected { server, path, routing: Some(Box::new(routing)) });
            }
            Err(Failed { ending, next }) => {
                if next != Next::Never
                    && let Some(ejection) = balancer::failed(&known, index, &settings, Instant::now())
                {
                    state.metrics.endpoint_ejections.with(&[]).add(1);
                    let service = &*names.host;
                    tracing::warn!(service, address = %endpoint.address, ?ejection, "an endpoint failed again and again; others are used");
                }
                if next != Next::Allowed {
                    return Err(ending);
                }
                if let Some(name) = endpoint.name {
                    state.destinations.names.refresh_soon(name);
                }
                failed = Some(ending);
                tried.push(endpoint.address);
            }
        }
    }
    Err(failed.unwrap_or_else(|| Ending::new(Reason::NoEndpoint, Some(target.to_string()))))
}

/// The endpoints by a look-up of their names that begins now. Empty if there are no names.
async fn look_up_endpoints<'t>(state: &ProxyState, target: &OutboundTarget, found: &Found<'t>) -> Vec<Dialable<'t>> {
    let mut addresses: HashMap<&str, Vec<IpAddr>> = HashMap::new();
    let lookups = async {
        for name in endpoints::names_to_resolve(target, found) {
            if let Ok(answer) = state.destinations.names.look_up_once(name).await {
                addresses.insert(name, answer.addresses);
            }
        }
    };
    // Those that are not answered by then are left out.
    let _elapsed = timeout(LOOKUP_TIMEOUT, lookups).await;
    endpoints::dialable(target, found, &addresses)
}

async fn to_endpoint(
    state: &Arc<ProxyState>,
    service: &ServiceTarget<'_>,
    endpoint: &Dialable<'_>,
    credentials: &OwnCredentials,
    record: &mut ConnRecord,
) -> Result<(MeshStream<TcpStream>, Option<PathSummary>, UpstreamTransport), Failed> {
    record.port = Some(endpoint.address.port());
    if let Some(policy) = decided_by(endpoint.transport) {
        record.policy = policy;
    }
    let address = endpoint.address;
    match endpoint.transport {
        Transport::Plaintext(reason) => {
            let endpoint_alone = MtlsDestination::Endpoint(Arc::clone(&service.host), address);
            let names = [service.peer.clone(), endpoint_alone];
            // A service that has endpoints with and without a sidecar is what it is.
            check_downgrade(state, names.get(usize::from(service.is_secured)..).unwrap_or_default(), reason.label())?;
            if *reason != PlaintextReason::External {
                still_has(state, endpoint).await?;
            }
            let server = to_plaintext(state, address, reason.label(), record).await?;
            Ok((server, None, UpstreamTransport::Plaintext))
        }
        Transport::Mtls { .. } if endpoints::is_own_app(state, endpoint) => {
            let server = to_plaintext(state, address, "own_app", record).await?;
            Ok((server, None, UpstreamTransport::OwnApp))
        }
        Transport::Mtls { identities, sni, .. } => {
            record.mode = "mtls";
            let unknown = |_| Ending::new(Reason::NoServerIdentity, Some(address.to_string()));
            let expected = identities.as_ref().map_err(unknown)?;
            let credentials = credentials.as_ref().map_err(|why| outcome::no_identity(*why))?;
            if endpoint.takes_hbone
                && let Some((stream, path)) = through_tunnel(state, address, expected, credentials, record).await?
            {
                note_mtls(state, service, address, record);
                return Ok((MeshStream::Tunneled(Box::new(stream)), Some(path), UpstreamTransport::Mtls));
            }
            let server = dial_endpoint(state, address, record).await?;
            // A service that lists no ports has the one that was dialled.
            let sni = Sni::parse(&sni.replacen("outbound_.0_", &format!("outbound_.{}_", address.port()), 1)).ok();
            let (stream, path) = secure(state, server, credentials, expected, sni.as_ref(), record).await?;
            note_mtls(state, service, address, record);
            Ok((stream, Some(path), UpstreamTransport::Mtls))
        }
        Transport::Originate(rule) => {
            record.mode = "tls";
            let unusable = |why: &str| Ending::new(Reason::OriginationUnusable, Some(why.to_owned()));
            let originator = service.table.originator(rule).map_err(unusable)?;
            let server = dial_endpoint(state, address, record).await?;
            let stream = start_tls(state, server, originator, record).await?;
            Ok((stream, None, UpstreamTransport::Originated))
        }
    }
}

/// Plaintext to what was reached over mTLS is told from now on.
fn note_mtls(state: &ProxyState, service: &ServiceTarget<'_>, address: SocketAddr, record: &ConnRecord) {
    state.seen_over_mtls.record(service.peer.clone());
    state.seen_over_mtls.record(MtlsDestination::Endpoint(Arc::clone(&service.host), address));
    remember_addresses(state, service.target, record);
}

/// An address that a name had a moment ago may be somebody else's now, and plaintext asks nobody who he is: so the name is looked up
/// for each connection, as those of configured destinations are.
async fn still_has(state: &ProxyState, endpoint: &Dialable<'_>) -> Result<(), Failed> {
    let Some(name) = endpoint.name else { return Ok(()) };
    match state.destinations.names.look_up_once(name).await {
        Ok(answer) if answer.addresses.contains(&endpoint.address.ip().to_canonical()) => Ok(()),
        Ok(_) => {
            let error = format!("{name} has not {} any more", endpoint.address.ip());
            Err(Failed { ending: Ending::new(Reason::NoEndpoint, Some(error)), next: Next::Allowed })
        }
        Err(error) => Err(Ending::new(Reason::NameUnresolved, Some(error.to_string())).into()),
    }
}

async fn to_plaintext(
    state: &ProxyState,
    address: SocketAddr,
    why: &'static str,
    record: &mut ConnRecord,
) -> Result<MeshStream<TcpStream>, Failed> {
    record.mode = "plaintext";
    record.no_mtls = Some(why);
    let server = dial_endpoint(state, address, record).await?;
    record.transport = "plaintext";
    Ok(MeshStream::Raw(server))
}

async fn dial_endpoint(state: &ProxyState, address: SocketAddr, record: &mut ConnRecord) -> Result<TcpStream, Failed> {
    let dialled = dial(address, state.settings.timeouts.connect).await;
    let server = dialled.map_err(|error| Failed {
        ending: outcome::unreachable(DialTarget::Peer, address, &error),
        next: Next::Allowed,
    })?;
    check_loop(state, &server, record)?;
    Ok(server)
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
) -> Result<(MeshStream<TcpStream>, PathSummary), Failed> {
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
    Ok((MeshStream::Secured(stream), peer.path))
}

/// The handshake with a server outside the mesh.
async fn start_tls(
    state: &ProxyState,
    server: TcpStream,
    originator: &Originator,
    record: &mut ConnRecord,
) -> Result<MeshStream<TcpStream>, Failed> {
    record.transport = "tls";
    match timeout(state.settings.timeouts.handshake, originate(server, originator)).await {
        Ok(Ok((stream, _server))) => Ok(MeshStream::Secured(stream)),
        Ok(Err(error)) => Err(handshake_failed(&error)),
        Err(_elapsed) => Err(Failed { ending: Ending::new(Reason::HandshakeTimeout, None), next: Next::TooLate }),
    }
}

/// The policy or the rule that decided, as `namespace/name`; none for what is declared nowhere.
fn decided_by(transport: &Transport) -> Option<Arc<str>> {
    match transport {
        Transport::Plaintext(PlaintextReason::NoSidecar | PlaintextReason::External) => None,
        Transport::Plaintext(PlaintextReason::ModeDisable { policy })
        | Transport::Mtls { by: MtlsReason::Auto { policy }, .. } => Some(Arc::clone(&policy.label)),
        Transport::Plaintext(PlaintextReason::RuleDisable { rule })
        | Transport::Mtls { by: MtlsReason::Rule { rule }, .. } => Some(Arc::clone(&rule.label)),
        Transport::Originate(origination) => Some(Arc::clone(&origination.rule.label)),
    }
}
