//! The story of one outbound connection. There is one attempt, and never a fallback to plaintext.

use std::sync::Arc;

use portcullis_identity::ExpectedIds;
use portcullis_net::Duplex;
use portcullis_net::accept::Accepted;
use portcullis_policy::Reason;
use portcullis_settings::RouteMode;
use portcullis_telemetry::{ConnRecord, Direction, Ending, TlsFacts};
use portcullis_tls::Stream;
use portcullis_tls::client::{Sni, connect};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::captured;
use crate::drain::LiveGuard;
use crate::end::{self, Dialled};
use crate::relay::{MeshEnd, dial, relay};
use crate::route::Verdict;
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
    mode: RouteMode,
    host: String,
    port: u16,
    service: Option<String>,
}

/// The future is what an idle connection holds, so it is kept small: a test has its size.
pub(crate) fn serve(
    world: Arc<World>,
    accepted: Accepted,
    live: LiveGuard,
    target: Target,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client, permit } = accepted;
    let record = ConnRecord::open(&world.metrics, Direction::Outbound, client.get());
    // Boxed, so that what it takes to get that far is given back then, and not held as long as the connection lives.
    let admitted = Box::pin(admit(Arc::clone(&world), stream, target, record));
    async move {
        let (record, admitted) = admitted.await;
        let ending = match admitted {
            Ok((mut app, mut server)) => {
                relay(&mut app, &mut server, &world.settings.timeouts, &record, &world.drain).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((live, permit));
    }
}

/// The two ends of a connection that may pass.
type Admitted = (TcpStream, MeshEnd<TcpStream>);

/// Everything up to the first byte for the server.
async fn admit(
    world: Arc<World>,
    stream: TcpStream,
    target: Target,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let reached = match destination(&world, &stream, target, &mut record).await {
        Ok(destination) => reach(&world, &destination, &mut record).await,
        Err(ending) => Err(ending),
    };
    let admitted = match reached {
        Ok(server) => {
            record.admit();
            Ok((stream, server))
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
        let upstream =
            world.settings.outbound.upstreams.get(index).ok_or_else(|| end::no_original_destination(None))?;
        record.port = upstream.address.port.to_string();
        record.port_is_known = true;
        return Ok(Destination {
            mode: upstream.mode.clone(),
            host: upstream.address.host.clone(),
            port: upstream.address.port,
            service: upstream.service.clone(),
        });
    }
    let address = captured::destination(stream, record)?;
    record.port_is_known = world.is_own_port(address.port()) || world.routes.name_port(address.port());
    if world.is_self(address) {
        return Err(end::because(Reason::Loop, None));
    }
    let (mode, service) = match world.routes.find(address).await {
        Verdict::Route { mode, service } => (mode, service),
        Verdict::Otherwise(mode) => (mode, None),
        Verdict::Refuse => return Err(end::because(Reason::NoRoute, Some(address.to_string()))),
        Verdict::Conflict => return Err(end::because(Reason::RouteConflict, Some(address.to_string()))),
    };
    Ok(Destination { mode, host: address.ip().to_string(), port: address.port(), service })
}

/// Step 2: dial, and handshake if the route says mTLS.
async fn reach(
    world: &World,
    destination: &Destination,
    record: &mut ConnRecord,
) -> Result<MeshEnd<TcpStream>, Ending> {
    let Destination { mode, host, port, .. } = destination;
    record.mode = match mode {
        RouteMode::Mtls(_) => "mtls",
        RouteMode::Plaintext => "plaintext",
    };
    let server = dial((host.as_str(), *port), world.settings.timeouts.connect)
        .await
        .map_err(|error| end::unreachable(Dialled::Peer, format_args!("{host}:{port}"), &error))?;
    record.dst_addr = server.peer_addr().ok().or(record.dst_addr);
    let RouteMode::Mtls(expected) = mode else {
        record.transport = "plaintext";
        return Ok(MeshEnd::Raw(server));
    };
    record.transport = "tls";
    secure(world, server, expected, destination, record).await.map(MeshEnd::Secured)
}

async fn secure(
    world: &World,
    server: TcpStream,
    expected: &ExpectedIds,
    destination: &Destination,
    record: &mut ConnRecord,
) -> Result<Stream<TcpStream>, Ending> {
    let credentials = world.snapshot().credentials.map_err(end::no_identity)?;
    let sni = destination.service.as_deref().and_then(|service| istio_sni(service, expected, destination.port));
    let handshake = connect(server, &credentials, expected, sni.as_ref());
    let (stream, peer) = match timeout(world.settings.timeouts.handshake, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(end::handshake(&error)),
        Err(_elapsed) => return Err(end::because(Reason::HandshakeTimeout, None)),
    };
    record.transport = "mtls";
    record.src_identity = Some(world.settings.own_id.to_string());
    record.dst_identity = Some(peer.id.to_string());
    record.tls = Some(TlsFacts { version: peer.tls_version, group: peer.group, cipher: peer.cipher });
    Ok(stream)
}

/// `outbound_.PORT_._.SERVICE.NAMESPACE.svc.cluster.local`, Istio's form, for routers on the way.
fn istio_sni(service: &str, expected: &ExpectedIds, port: u16) -> Option<Sni> {
    let id = expected.iter().next()?;
    let namespace = id.istio()?.namespace.to_string();
    Sni::parse(&format!("outbound_.{port}_._.{service}.{namespace}.svc.cluster.local")).ok()
}
