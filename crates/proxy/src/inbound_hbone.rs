//! The life of one inbound HBONE tunnel, and of each of its streams.
//!
//! The tunnel authenticates the peer; each stream is decided by itself, as a connection to its own port would be, and has a record of
//! its own. A change of policy ends streams; the tunnel ends when its peer is no longer trusted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_hbone::{ConnectRefusal, Event, Request, ServerTunnel, TunnelStream};
use portcullis_identity::SpiffeId;
use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountLimit, KeyedPermit};
use portcullis_net::socket::SecondHandle;
use portcullis_net::{Duplex as _, OrigDst, is_own_address};
use portcullis_telemetry::{ConnRecord, Direction, Ending, PeerClaims, TraceIds, TunnelFacts};
use portcullis_tls::{Credentials, PathSummary, Stream, Unavailable, server};
use portcullis_wire::Opening;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::changes::ChangeWatch;
use crate::drain::{ConnectionGuard, Phase};
use crate::outcome::{self, Reason};
use crate::permits::Permits;
use crate::relay::{Closing, Endpoints, record_peer, relay};
use crate::state::{ProxyState, Snapshot};
use crate::to_app::{AppTarget, Carrier, ReachedApp, ToApp, reauthorize};

/// How long a tunnel whose peer is not trusted any more, or that is ended by force, goes on to send the resets of its streams.
const LAST_FRAMES: Duration = Duration::from_millis(200);
/// Why a tunnel ended that this proxy ended, in metrics; besides those of [`portcullis_hbone::TunnelEnd`].
const TRUST_CHANGED: &str = "trust_changed";
const DRAINED: &str = "drained";

/// What the accept loop hands over with an accepted connection.
pub(crate) struct HboneAdmission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    /// The limits of `inbound.ports`.
    pub(crate) ports: Arc<[CountLimit]>,
}

/// What all streams of one tunnel share.
pub(crate) struct InboundTunnel {
    facts: TunnelFacts,
    path: PathSummary,
    ports: Arc<[CountLimit]>,
}

type TlsTunnel = ServerTunnel<Stream<TcpStream>>;

/// A tunnel that is open.
struct Established {
    connection: TlsTunnel,
    path: PathSummary,
    /// Among the tunnels of its peer.
    _permit: Option<KeyedPermit<SpiffeId>>,
    changes: ChangeWatch,
}

/// Serves one tunnel.
pub(crate) async fn serve(state: Arc<ProxyState>, accepted: Accepted, admission: HboneAdmission) {
    let Accepted { stream, client } = accepted;
    let HboneAdmission { guard, permit, ports } = admission;
    let mut record = ConnRecord::open(&state.metrics, Direction::Inbound, client.get());
    record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
    record.port = record.dst_addr.map(|address| address.port());
    match Box::pin(establish(&state, stream, &mut record)).await {
        Err(ending) => record.finish(&ending),
        Ok(Established { connection, path, _permit, changes }) => {
            if let Some(facts) = record.into_tunnel() {
                run(&state, connection, Arc::new(InboundTunnel { facts, path, ports }), changes).await;
            }
        }
    }
    drop((guard, permit));
}

/// The handshakes of TLS and HTTP/2, under the deadline of every undecided connection and in its slot.
async fn establish(state: &ProxyState, stream: TcpStream, record: &mut ConnRecord) -> Result<Established, Ending> {
    let deadline = Instant::now() + state.settings.timeouts.handshake;
    let slot = state.connections.undecided().acquire(record.src_addr.ip());
    let second = SecondHandle::of(&stream).ok();
    let Snapshot { policy: _, credentials, changes } = state.snapshot();
    let handshakes = async {
        let SecuredPeer { stream, path, permit } = secure(state, stream, credentials, deadline, record).await?;
        slot.made_progress();
        match timeout_at(deadline, ServerTunnel::handshake(stream)).await {
            Ok(Ok(connection)) => Ok(Established { connection, path, _permit: permit, changes }),
            Ok(Err(error)) => Err(Ending::new(Reason::Protocol, Some(error.to_string()))),
            Err(_elapsed) => Err(Ending::new(Reason::HandshakeTimeout, None)),
        }
    };
    tokio::select! {
        biased;
        () = slot.evicted() => Err(Ending::new(Reason::TooManyHandshakes, None)),
        () = state.drain.reached(Phase::Forced) => {
            if let Some(second) = second {
                second.reset();
            }
            Err(outcome::forced_before_admission())
        }
        established = handshakes => established,
    }
}

/// A peer whose mTLS handshake succeeded.
struct SecuredPeer {
    stream: Stream<TcpStream>,
    path: PathSummary,
    permit: Option<KeyedPermit<SpiffeId>>,
}

async fn secure(
    state: &ProxyState,
    stream: TcpStream,
    credentials: Result<Arc<Credentials>, Unavailable>,
    deadline: Instant,
    record: &mut ConnRecord,
) -> Result<SecuredPeer, Ending> {
    record.transport = "tls";
    let credentials = credentials.map_err(outcome::no_identity)?;
    let began = Instant::now();
    let (stream, peer) = match timeout_at(deadline, server::accept_hbone(stream, &credentials)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return Err(outcome::handshake(&error, Direction::Inbound)),
        Err(_elapsed) => return Err(Ending::new(Reason::HandshakeTimeout, None)),
    };
    record_peer(state, record, &peer, began);
    let mut permit = None;
    if state.tunnels_per_identity.is_limited() {
        permit = state.tunnels_per_identity.try_acquire(&peer.id);
        if permit.is_none() {
            let _closed = stream.get_ref().reset_on_close();
            return Err(Ending::new(Reason::TooManyOfPeer, None));
        }
    }
    Ok(SecuredPeer { stream, path: peer.path, permit })
}

/// Moves the bytes of a tunnel, and begins its streams, until it ends.
async fn run(state: &Arc<ProxyState>, mut connection: TlsTunnel, tunnel: Arc<InboundTunnel>, mut changes: ChangeWatch) {
    let _open = state.metrics.tunnels.opened(Direction::Inbound);
    let mut draining = false;
    let reason = loop {
        let phase = state.drain.phase();
        if phase == Phase::Forced {
            break DRAINED;
        }
        if phase >= Phase::InboundClosed && !draining {
            draining = true;
            connection.drain();
        }
        if !is_trusted(state, &tunnel) {
            break TRUST_CHANGED;
        }
        tokio::select! {
            biased;
            () = changes.next() => {}
            event = connection.next() => match event {
                Event::Request(request) => drop(tokio::spawn(serve_stream(Arc::clone(state), Arc::clone(&tunnel), request))),
                Event::Ended(end) => break end.label(),
            },
        }
    };
    if reason == DRAINED || reason == TRUST_CHANGED {
        // Each stream has the same cause to end, and resets itself.
        connection.drain();
        let resets = async {
            while let Event::Request(request) = connection.next().await {
                request.reset()
            }
        };
        let _elapsed = timeout(LAST_FRAMES, resets).await;
    }
    state.metrics.tunnels.closed(Direction::Inbound, reason);
}

/// Whether the credentials now in force trust the peer.
fn is_trusted(state: &ProxyState, tunnel: &InboundTunnel) -> bool {
    state
        .credentials
        .latest()
        .is_some_and(|credentials| credentials.still_trusts(&tunnel.facts.peer, &tunnel.path).is_ok())
}

/// Serves one stream. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve_stream(
    state: Arc<ProxyState>,
    tunnel: Arc<InboundTunnel>,
    request: Request,
) -> impl Future<Output = ()> + Send {
    let guard = state.drain.enter();
    let mut record = ConnRecord::open_stream(&state.metrics, &tunnel.facts, request.target.ok());
    record.set_claims(claims(&request));
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), Arc::clone(&tunnel), request, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, permits: _permits, port, changes }) => {
                let reauthorize = |state: &ProxyState, record: &mut ConnRecord| {
                    reauthorize(state, record, port, Carrier::Hbone, Some(&tunnel.path)).map(Closing::Now)
                };
                relay(&state, &mut endpoints, &mut record, changes, reauthorize).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop(guard);
    }
}

fn claims(request: &Request) -> PeerClaims {
    let trace = request.claims.trace.map(|trace| TraceIds { trace: trace.trace_id, span: trace.span_id });
    PeerClaims { trace, workload: request.claims.workload.clone() }
}

/// Both endpoints of an admitted stream, and what it was admitted with.
struct Admitted {
    endpoints: Endpoints<TunnelStream, TcpStream>,
    /// A pointer, since it is held as long as the stream is open.
    permits: Box<StreamPermits>,
    port: u16,
    changes: ChangeWatch,
}

/// What a stream counts against until it ends.
struct StreamPermits {
    _limits: Permits,
    _connection: ConnectionPermit,
}

/// Everything before the answer 200. Returns the record, which outlives this future.
async fn admit(
    state: Arc<ProxyState>,
    tunnel: Arc<InboundTunnel>,
    mut request: Request,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let target = request.target;
    let reached = tokio::select! {
        biased;
        () = state.drain.reached(Phase::Forced) => Err(outcome::forced_before_admission()),
        () = request.gone() => Err(Ending::new(Reason::ClientGone, None)),
        reached = reach(&state, &tunnel, target, &mut record) => reached,
    };
    let AuthorizedApp { app, permits, port, changes } = match reached {
        Ok(authorized) => authorized,
        Err(ending) => {
            request.refuse(refusal(&ending));
            return (record, Err(ending));
        }
    };
    match request.accept() {
        Ok(client) => {
            record.admit();
            (record, Ok(Admitted { endpoints: Endpoints { client, server: app }, permits, port, changes }))
        }
        Err(error) => {
            // The app must not take it for a client that had nothing to say.
            let _closed = app.reset_on_close();
            (record, Err(Ending::new(Reason::ClientGone, Some(error.to_string()))))
        }
    }
}

/// The app of a stream that policies let through.
struct AuthorizedApp {
    app: TcpStream,
    permits: Box<StreamPermits>,
    port: u16,
    changes: ChangeWatch,
}

/// Decides about a stream, and reaches its app.
async fn reach(
    state: &ProxyState,
    tunnel: &InboundTunnel,
    target: Result<SocketAddr, portcullis_hbone::BadRequest>,
    record: &mut ConnRecord,
) -> Result<AuthorizedApp, Ending> {
    let destination = target.map_err(|error| Ending::new(Reason::BadHboneRequest, Some(error.to_string())))?;
    let no_limit = CountLimit::default();
    let (target, limit) = app_target(state, tunnel, destination, &no_limit)?;
    record.port = Some(target.port);
    record.set_app(target.app);
    let permit = state.connections.acquire().await.ok_or_else(|| Ending::new(Reason::TooManyConnections, None))?;
    let mut permits = Permits::default();
    if state.per_identity.is_limited() {
        let peer = state.per_identity.try_acquire(&tunnel.facts.peer);
        permits = Permits::of_peer(peer.ok_or_else(|| Ending::new(Reason::TooManyOfPeer, None))?);
    }
    let Snapshot { policy, credentials: _, changes } = state.snapshot();
    let decided = policy.mode(target.port);
    record.mode = decided.mode.as_str();
    record.policy = Arc::clone(&decided.label);
    let app = ToApp { state, policy: &policy, changes: &changes, target: &target, limit, carrier: Carrier::Hbone };
    // What a tunnel carries is the same as mTLS of its own.
    let reached = app.reach(record, Some(Opening::MeshTls), Some(&tunnel.path), None).await;
    let ReachedApp { app, permit: of_port } = reached?;
    let permits = Box::new(StreamPermits { _limits: permits.with_listener(of_port), _connection: permit });
    Ok(AuthorizedApp { app, permits, port: target.port, changes })
}

/// A configured port by its own number or that of its listener, on an address of this host; else an app at the address itself.
fn app_target<'l>(
    state: &ProxyState,
    tunnel: &'l InboundTunnel,
    destination: SocketAddr,
    no_limit: &'l CountLimit,
) -> Result<(AppTarget, &'l CountLimit), Ending> {
    let ports = &state.settings.inbound.ports;
    let by_number = ports.iter().position(|port| port.port == destination.port());
    let index = by_number.or_else(|| ports.iter().position(|port| port.listen.port() == destination.port()));
    let Some((index, port)) = index.and_then(|index| Some((index, ports.get(index)?))) else {
        return Ok((AppTarget::of_destination(state, destination)?, no_limit));
    };
    let (ip, own) = (destination.ip(), tunnel.facts.dst_addr.map(|address| address.ip()));
    // A peer must not choose what rules on `destination.ip` are compared with.
    let local_only = (ip.is_loopback() || ip.is_unspecified()) && own != Some(ip);
    if local_only || !is_own_address(destination).unwrap_or(false) {
        return Err(Ending::new(Reason::ForeignDestination, Some(destination.to_string())));
    }
    Ok((AppTarget::of_port(port), tunnel.ports.get(index).unwrap_or(no_limit)))
}

/// How the peer is told.
fn refusal(ending: &Ending) -> ConnectRefusal {
    let is = |reason: Reason| ending.reason == reason.label();
    let any = |reasons: &[Reason]| reasons.iter().any(|reason| is(*reason));
    if any(&[Reason::BadHboneRequest, Reason::ForeignDestination, Reason::Loop]) {
        ConnectRefusal::BadRequest
    } else if any(&[
        Reason::AuthorizationDenied,
        Reason::AuthorizationNotAllowed,
        Reason::PolicyChanged,
        Reason::TrustChanged,
    ]) {
        ConnectRefusal::Denied
    } else {
        ConnectRefusal::Unavailable
    }
}
