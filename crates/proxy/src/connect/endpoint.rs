//! To one endpoint of a service, by the transport that the directory gives for it.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_identity::ExpectedIds;
use portcullis_policy::directory::{MtlsReason, PlaintextReason, TlsOrigination, Transport};
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::client::Sni;
use portcullis_tls::{Originator, originate};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failed::{Failed, Next, handshake_failed};
use super::tunnel::through_tunnel;
use super::upstream_conn::{OwnCredentials, UpstreamConn, check_downgrade, check_loop, remember_addresses, secure};
use crate::destination::OutboundTarget;
use crate::downgrade::MtlsDestination;
use crate::endpoints::{self, Dialable};
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{MeshStream, dial};
use crate::routing_decision::UpstreamTransport;
use crate::services::ServiceTable;
use crate::state::ProxyState;

/// A service of the directory, as it was found.
pub(super) struct ServiceTarget<'t> {
    pub(super) target: &'t OutboundTarget,
    pub(super) table: &'t ServiceTable,
    pub(super) host: Arc<str>,
    /// The service as a destination that was reached over mTLS.
    pub(super) peer: MtlsDestination,
    /// Whether an endpoint of it is secured.
    pub(super) is_secured: bool,
}

/// An open connection to an endpoint.
pub(super) struct EndpointConn {
    pub(super) upstream: UpstreamConn,
    pub(super) via: UpstreamTransport,
}

/// Connects to an endpoint, and records how.
///
/// # Errors
/// Why there is no connection, and whether another endpoint may be tried.
pub(super) async fn to_endpoint(
    state: &Arc<ProxyState>,
    service: &ServiceTarget<'_>,
    endpoint: &Dialable<'_>,
    credentials: &OwnCredentials,
    record: &mut ConnRecord,
) -> Result<EndpointConn, Failed> {
    let address = endpoint.address;
    record.port = Some(address.port());
    if let Some(policy) = decided_by(endpoint.transport) {
        record.policy = policy;
    }
    let (upstream, via) = match endpoint.transport {
        Transport::Plaintext(reason) => {
            check_plaintext(state, service, endpoint, reason).await?;
            (to_plaintext(state, address, reason.label(), record).await?, UpstreamTransport::Plaintext)
        }
        Transport::Mtls { .. } if endpoints::is_own_app(state, endpoint) => {
            (to_plaintext(state, address, "own_app", record).await?, UpstreamTransport::OwnApp)
        }
        Transport::Mtls { identities, sni, .. } => {
            record.mode = "mtls";
            let unknown = |_| Ending::new(Reason::NoServerIdentity, Some(address.to_string()));
            let expected = identities.as_ref().map_err(unknown)?;
            let upstream = to_mtls(state, endpoint, &Expected { ids: expected, sni }, credentials, record).await?;
            note_mtls(state, service, address, record);
            (upstream, UpstreamTransport::Mtls)
        }
        Transport::Originate(rule) => {
            (to_external(state, service, address, rule, record).await?, UpstreamTransport::Originated)
        }
    };
    Ok(EndpointConn { upstream, via })
}

/// Refuses plaintext to what was reached over mTLS before, if that is configured, and to an address that its name has no more.
async fn check_plaintext(
    state: &ProxyState,
    service: &ServiceTarget<'_>,
    endpoint: &Dialable<'_>,
    reason: &PlaintextReason,
) -> Result<(), Failed> {
    let endpoint_alone = MtlsDestination::Endpoint(Arc::clone(&service.host), endpoint.address);
    let names = [service.peer.clone(), endpoint_alone];
    // A service that has endpoints with and without a sidecar is what it is.
    check_downgrade(state, names.get(usize::from(service.is_secured)..).unwrap_or_default(), reason.label())?;
    if *reason == PlaintextReason::External { Ok(()) } else { still_has(state, endpoint).await }
}

/// Who may answer, and the server name to send.
struct Expected<'t> {
    ids: &'t ExpectedIds,
    sni: &'t str,
}

/// mTLS with a mesh peer: in an HBONE tunnel if the endpoint takes them, else on TCP.
async fn to_mtls(
    state: &Arc<ProxyState>,
    endpoint: &Dialable<'_>,
    expected: &Expected<'_>,
    credentials: &OwnCredentials,
    record: &mut ConnRecord,
) -> Result<UpstreamConn, Failed> {
    let address = endpoint.address;
    let credentials = credentials.as_ref().map_err(|why| outcome::no_identity(*why))?;
    if endpoint.takes_hbone
        && let Some((stream, path)) = through_tunnel(state, address, expected.ids, credentials, record).await?
    {
        return Ok(UpstreamConn::mtls(MeshStream::Tunneled(Box::new(stream)), path));
    }
    let server = dial_endpoint(state, address, record).await?;
    // A service that lists no ports has the one that was dialled.
    let sni = expected.sni.replacen("outbound_.0_", &format!("outbound_.{}_", address.port()), 1);
    secure(state, server, credentials, expected.ids, Sni::parse(&sni).ok().as_ref(), record).await
}

/// TLS with a server outside the mesh, which a DestinationRule asks for.
async fn to_external(
    state: &ProxyState,
    service: &ServiceTarget<'_>,
    address: SocketAddr,
    rule: &Arc<TlsOrigination>,
    record: &mut ConnRecord,
) -> Result<UpstreamConn, Failed> {
    record.mode = "tls";
    let unusable = |why: &str| Ending::new(Reason::OriginationUnusable, Some(why.to_owned()));
    let originator = service.table.originator(rule).map_err(unusable)?;
    let server = dial_endpoint(state, address, record).await?;
    Ok(UpstreamConn::without_mtls(start_tls(state, server, originator, record).await?))
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
) -> Result<UpstreamConn, Failed> {
    record.mode = "plaintext";
    record.no_mtls = Some(why);
    let server = dial_endpoint(state, address, record).await?;
    record.transport = "plaintext";
    Ok(UpstreamConn::without_mtls(MeshStream::Raw(server)))
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
