//! The story of one outbound connection. There is one attempt, and never a fallback to plaintext.

use std::sync::Arc;

use portcullis_identity::ExpectedIds;
use portcullis_net::{ClientAddr, Duplex};
use portcullis_policy::Reason;
use portcullis_settings::RouteMode;
use portcullis_telemetry::{ConnRecord, Direction, Ending, TlsFacts};
use portcullis_tls::client::{Sni, connect};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::captured;
use crate::end::{self, Dialled};
use crate::relay::{Secured, dial, relay};
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

pub(crate) async fn serve(world: Arc<World>, stream: TcpStream, client: ClientAddr, target: Target) {
    let mut record = ConnRecord::open(&world.metrics, Direction::Outbound, client.get());
    let ending = match destination(&world, &stream, target, &mut record).await {
        Ok(destination) => match carry(&world, stream, &destination, &mut record).await {
            Ok(ending) => ending,
            Err((stream, ending)) => {
                // The app must not take a failure for an empty answer.
                let _closed = stream.reset_on_close();
                ending
            }
        },
        Err(ending) => {
            let _closed = stream.reset_on_close();
            ending
        }
    };
    record.finish(&ending);
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

/// Step 2: dial, handshake if the route says mTLS, copy. On failure the app's connection comes back to be reset.
async fn carry(
    world: &World,
    stream: TcpStream,
    destination: &Destination,
    record: &mut ConnRecord,
) -> Result<Ending, (TcpStream, Ending)> {
    let Destination { mode, host, port, .. } = destination;
    record.mode = match mode {
        RouteMode::Mtls(_) => "mtls",
        RouteMode::Plaintext => "plaintext",
    };
    let server = match dial((host.as_str(), *port), world.settings.timeouts.connect).await {
        Ok(server) => server,
        Err(error) => {
            return Err((stream, end::unreachable(Dialled::Peer, format_args!("{host}:{port}"), &error)));
        }
    };
    record.dst_addr = server.peer_addr().ok().or(record.dst_addr);
    let RouteMode::Mtls(expected) = mode else {
        record.transport = "plaintext";
        record.admit();
        return Ok(relay(stream, server, world.settings.timeouts, &record.bytes, &world.drain).await);
    };
    record.transport = "tls";
    match secure(world, server, expected, destination, record).await {
        Ok(server) => {
            record.admit();
            Ok(relay(stream, server, world.settings.timeouts, &record.bytes, &world.drain).await)
        }
        Err(ending) => Err((stream, ending)),
    }
}

async fn secure(
    world: &World,
    server: TcpStream,
    expected: &ExpectedIds,
    destination: &Destination,
    record: &mut ConnRecord,
) -> Result<Secured<TcpStream>, Ending> {
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
    record.tls =
        Some(TlsFacts { version: peer.tls_version, group: peer.group.to_owned(), cipher: peer.cipher.to_owned() });
    Ok(Secured(stream))
}

/// `outbound_.PORT_._.SERVICE.NAMESPACE.svc.cluster.local`, Istio's form, for routers on the way.
fn istio_sni(service: &str, expected: &ExpectedIds, port: u16) -> Option<Sni> {
    let id = expected.iter().next()?;
    let namespace = id.istio()?.namespace.to_string();
    Sni::parse(&format!("outbound_.{port}_._.{service}.{namespace}.svc.cluster.local")).ok()
}
