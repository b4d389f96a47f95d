//! The life of one outbound connection. There is one attempt, and never a fallback to plaintext.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_net::Duplex;
use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountPermit};
use portcullis_telemetry::{ConnRecord, Direction, Ending};
use portcullis_tls::client::connect_corked;
use portcullis_tls::{Credentials, PathSummary, Unavailable};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::captured;
use crate::changes::ChangeWatch;
use crate::drain::{ConnectionGuard, Phase};
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{Endpoints, MeshStream, check_trust, dial, record_peer, relay};
use crate::resolved_route::ResolvedRoute;
use crate::routes::RouteLookup;
use crate::state::ProxyState;

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listener {
    /// One configured upstream, by its index in `outbound.upstreams`.
    Upstream(usize),
    /// Redirected connections; the routes apply to each.
    Captured,
}

/// What the accept loop hands over with an accepted connection.
pub(crate) struct Admission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    pub(crate) listener: Listener,
    pub(crate) listener_permit: CountPermit,
}

/// Where a connection goes, and how.
struct Destination {
    route: Arc<ResolvedRoute>,
    host: Host,
}

/// What is dialled: the original destination, or a configured host and port.
enum Host {
    /// A whole socket address, since a link-local address needs its scope.
    Original(SocketAddr),
    Configured {
        host: Arc<str>,
        port: u16,
    },
}

impl Host {
    const fn port(&self) -> u16 {
        match self {
            Self::Original(address) => address.port(),
            Self::Configured { port, .. } => *port,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original(address) => write!(f, "{address}"),
            Self::Configured { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Serves one connection. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve(
    state: Arc<ProxyState>,
    accepted: Accepted,
    admission: Admission,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client } = accepted;
    let Admission { guard, permit, listener, listener_permit } = admission;
    let record = ConnRecord::open(&state.metrics, Direction::Outbound, client.get());
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), stream, listener, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, path, changes }) => {
                let reauthorize =
                    |state: &ProxyState, record: &mut ConnRecord| check_trust(state, record, path.as_ref()?);
                relay(&state, &mut endpoints, &mut record, changes, reauthorize).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((guard, permit, listener_permit));
    }
}

/// Both endpoints of an admitted connection, and what the trust in its peer rests on.
struct Admitted {
    endpoints: Endpoints<TcpStream, MeshStream<TcpStream>>,
    path: Option<PathSummary>,
    changes: ChangeWatch,
}

/// Everything that happens before the first byte of the app reaches the server. Returns the record, which outlives this future.
async fn admit(
    state: Arc<ProxyState>,
    stream: TcpStream,
    listener: Listener,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let snapshot = state.snapshot();
    let connect = async {
        let destination = destination(&state, &stream, listener, &mut record).await?;
        connect(&state, &destination, snapshot.credentials, &mut record).await
    };
    let connected = tokio::select! {
        biased;
        () = state.drain.reached(Phase::Forced) => Err(outcome::forced_before_admission()),
        connected = connect => connected,
    };
    let admitted = match connected {
        Ok((server, path)) => {
            record.admit();
            Ok(Admitted { endpoints: Endpoints { client: stream, server }, path, changes: snapshot.changes })
        }
        Err(ending) => {
            // The app must not mistake a failure for an empty answer.
            let _closed = stream.reset_on_close();
            Err(ending)
        }
    };
    (record, admitted)
}

/// Step 1: finds the destination, and the route that applies to it.
async fn destination(
    state: &ProxyState,
    stream: &TcpStream,
    listener: Listener,
    record: &mut ConnRecord,
) -> Result<Destination, Ending> {
    if let Listener::Upstream(index) = listener {
        let upstream = state.upstreams.get(index).ok_or_else(|| outcome::no_original_destination(None))?;
        record.port = Some(upstream.port);
        let host = Host::Configured { host: Arc::clone(&upstream.host), port: upstream.port };
        return Ok(Destination { route: Arc::clone(&upstream.route), host });
    }
    let address = captured::destination(stream, record)?;
    if state.would_loop_back(address) {
        return Err(Ending::new(Reason::Loop, None));
    }
    let route = match state.routes.find(address).await {
        RouteLookup::Found(route) => route,
        RouteLookup::NoRoute => return Err(Ending::new(Reason::NoRoute, Some(address.to_string()))),
        RouteLookup::Unresolved => return Err(Ending::new(Reason::NameUnresolved, Some(address.to_string()))),
        RouteLookup::Conflict => return Err(Ending::new(Reason::RouteConflict, Some(address.to_string()))),
    };
    Ok(Destination { route, host: Host::Original(address) })
}

/// Step 2: dial, and handshake if the route says mTLS.
async fn connect(
    state: &ProxyState,
    Destination { route, host }: &Destination,
    credentials: Result<Arc<Credentials>, Unavailable>,
    record: &mut ConnRecord,
) -> Result<(MeshStream<TcpStream>, Option<PathSummary>), Ending> {
    record.mode = match &route.mode {
        RouteMode::Mtls(_) => "mtls",
        RouteMode::Plaintext => "plaintext",
    };
    record.service.clone_from(&route.service);
    let secured = match &route.mode {
        // Before the dial: a peer that sees a connection open and close would look for the fault on its own side.
        RouteMode::Mtls(expected) => Some((expected, credentials.map_err(outcome::no_identity)?)),
        RouteMode::Plaintext => None,
    };
    let within = state.settings.timeouts.connect;
    let dialled = match host {
        Host::Original(address) => dial(address, within).await,
        Host::Configured { host, port } => dial((&**host, *port), within).await,
    };
    let server = dialled.map_err(|error| outcome::unreachable(DialTarget::Peer, host, &error))?;
    record.dst_addr = server.peer_addr().ok().or(record.dst_addr);
    if server.peer_addr().is_ok_and(|peer| state.is_own_outbound(peer)) {
        return Err(Ending::new(Reason::Loop, Some(host.to_string())));
    }
    let Some((expected, credentials)) = secured else {
        record.transport = "plaintext";
        return Ok((MeshStream::Raw(server), None));
    };
    record.transport = "tls";
    let sni = route.sni(host.port());
    let began = Instant::now();
    // The relay writes or reads next, which sends what is corked.
    let handshake = connect_corked(server, &credentials, expected, sni.as_ref());
    let (stream, peer) = match timeout(state.settings.timeouts.handshake, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(outcome::handshake(&error, Direction::Outbound)),
        Err(_elapsed) => return Err(Ending::new(Reason::HandshakeTimeout, None)),
    };
    record_peer(state, record, &peer, began);
    Ok((MeshStream::Secured(stream), Some(peer.path)))
}
