//! The story of one outbound connection. There is one attempt, and never a fallback to plaintext.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_net::Duplex;
use portcullis_net::accept::Accepted;
use portcullis_policy::Reason;
use portcullis_telemetry::{ConnRecord, Direction, Ending};
use portcullis_tls::client::connect_corked;
use portcullis_tls::{Credentials, PathSummary, Unavailable};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::captured;
use crate::changes::Changes;
use crate::drain::{ListenerPlace, LiveGuard, Phase};
use crate::end::{self, Dialled};
use crate::relay::{Ends, MeshEnd, authenticated, dial, distrusted, relay};
use crate::route::Verdict;
use crate::way::Way;
use crate::world::World;

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// One configured upstream, by its index in `outbound.upstreams`.
    Upstream(usize),
    /// Redirected connections; routes say what becomes of each.
    Captured,
}

/// Where a connection is going, and how.
struct Destination {
    way: Arc<Way>,
    host: Host,
}

/// What is dialled: the address that was, or a configured name or address.
enum Host {
    /// Whole, since a link-local address means nothing without its scope.
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

/// The future is what an idle connection holds, so it is kept small: a test has its size.
pub(crate) fn serve(
    world: Arc<World>,
    accepted: Accepted,
    live: (LiveGuard, ListenerPlace),
    target: Target,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client, permit } = accepted;
    let record = ConnRecord::open(&world.metrics, Direction::Outbound, client.get());
    // Boxed, so that what it takes to get that far is given back then, and not held as long as the connection lives.
    let admitted = Box::pin(admit(Arc::clone(&world), stream, target, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut ends, path, changes }) => {
                let withdrawn = |world: &World, record: &mut ConnRecord| distrusted(world, record, path.as_ref()?);
                relay(&world, &mut ends, &mut record, changes, withdrawn).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((live, permit));
    }
}

/// The two ends of a connection that may pass, and what its peer's identity rests on.
struct Admitted {
    ends: Ends<TcpStream, MeshEnd<TcpStream>>,
    path: Option<PathSummary>,
    changes: Changes,
}

/// Everything up to the first byte for the server.
async fn admit(
    world: Arc<World>,
    stream: TcpStream,
    target: Target,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let snapshot = world.snapshot();
    let reach = async {
        let destination = destination(&world, &stream, target, &mut record).await?;
        reach(&world, &destination, snapshot.credentials, &mut record).await
    };
    let reached = tokio::select! {
        biased;
        () = world.drain.reached(Phase::Forced) => Err(end::forced_early()),
        reached = reach => reached,
    };
    let admitted = match reached {
        Ok((server, path)) => {
            record.admit();
            Ok(Admitted { ends: Ends { client: stream, server }, path, changes: snapshot.changes })
        }
        Err(ending) => {
            // The app must not take a failure for an empty answer.
            let _closed = stream.reset_on_close();
            Err(ending)
        }
    };
    (record, admitted)
}

/// Step 1: where was it going, and what does the route say?
async fn destination(
    world: &World,
    stream: &TcpStream,
    target: Target,
    record: &mut ConnRecord,
) -> Result<Destination, Ending> {
    if let Target::Upstream(index) = target {
        let upstream = world.upstreams.get(index).ok_or_else(|| end::no_original_destination(None))?;
        record.port = Some(upstream.port);
        let host = Host::Configured { host: Arc::clone(&upstream.host), port: upstream.port };
        return Ok(Destination { way: Arc::clone(&upstream.way), host });
    }
    let address = captured::destination(stream, record)?;
    if world.is_self(address) {
        return Err(end::because(Reason::Loop, None));
    }
    let way = match world.routes.find(address).await {
        Verdict::Way(way) => way,
        Verdict::Refuse => return Err(end::because(Reason::NoRoute, Some(address.to_string()))),
        Verdict::Unresolved => return Err(end::because(Reason::NameUnresolved, Some(address.to_string()))),
        Verdict::Conflict => return Err(end::because(Reason::RouteConflict, Some(address.to_string()))),
    };
    Ok(Destination { way, host: Host::Original(address) })
}

/// Step 2: dial, and handshake if the route says mTLS.
async fn reach(
    world: &World,
    Destination { way, host }: &Destination,
    credentials: Result<Arc<Credentials>, Unavailable>,
    record: &mut ConnRecord,
) -> Result<(MeshEnd<TcpStream>, Option<PathSummary>), Ending> {
    record.mode = match &way.mode {
        RouteMode::Mtls(_) => "mtls",
        RouteMode::Plaintext => "plaintext",
    };
    record.service.clone_from(&way.service);
    let secured = match &way.mode {
        // Before the dial: a peer that sees a connection come and go would look for the fault on its own side.
        RouteMode::Mtls(expected) => Some((expected, credentials.map_err(end::no_identity)?)),
        RouteMode::Plaintext => None,
    };
    let within = world.settings.timeouts.connect;
    let dialled = match host {
        Host::Original(address) => dial(address, within).await,
        Host::Configured { host, port } => dial((&**host, *port), within).await,
    };
    let server = dialled.map_err(|error| end::unreachable(Dialled::Peer, host, &error))?;
    record.dst_addr = server.peer_addr().ok().or(record.dst_addr);
    if server.peer_addr().is_ok_and(|peer| world.is_own_outbound(peer)) {
        return Err(end::because(Reason::Loop, Some(host.to_string())));
    }
    let Some((expected, credentials)) = secured else {
        record.transport = "plaintext";
        return Ok((MeshEnd::Raw(server), None));
    };
    record.transport = "tls";
    let sni = way.sni(host.port());
    let began = Instant::now();
    // The relay writes or reads next.
    let handshake = connect_corked(server, &credentials, expected, sni.as_ref());
    let (stream, peer) = match timeout(world.settings.timeouts.handshake, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(end::handshake(&error)),
        Err(_elapsed) => return Err(end::because(Reason::HandshakeTimeout, None)),
    };
    authenticated(world, record, &peer, began);
    Ok((MeshEnd::Secured(stream), Some(peer.path)))
}
