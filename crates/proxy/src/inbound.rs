//! The story of one inbound connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_net::{ClientAddr, Detected, Detector, Duplex, OrigDst, Replay, Sniff};
use portcullis_policy::{Action, Mode, NoTls, Reason, decide};
use portcullis_settings::{Protocol, defaults};
use portcullis_telemetry::{ConnRecord, Direction, Ending, TlsFacts};
use portcullis_tls::server;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::captured;
use crate::end::{self, Dialled};
use crate::relay::{Secured, dial, relay};
use crate::world::{Snapshot, World};

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// One configured port, by its index in `inbound.ports`.
    Port(usize),
    /// Redirected connections; each says itself where it was going.
    Captured,
}

/// Where a connection is going.
struct Place {
    port: u16,
    app: SocketAddr,
    server_first: bool,
}

pub(crate) async fn serve(world: Arc<World>, stream: TcpStream, client: ClientAddr, target: Target) {
    let deadline = Instant::now() + world.settings.timeouts.handshake;
    let mut record = ConnRecord::open(&world.metrics, Direction::Inbound, client.get());
    let ending = match place(&world, &stream, target, &mut record) {
        Ok(place) => match judge(&world, stream, &place, deadline, &mut record).await {
            Ok(ending) | Err(ending) => ending,
        },
        Err(ending) => ending,
    };
    record.finish(&ending);
}

/// Step 1: where was it going? Our own ports are refused.
fn place(world: &World, stream: &TcpStream, target: Target, record: &mut ConnRecord) -> Result<Place, Ending> {
    let inbound = &world.settings.inbound;
    if let Target::Port(index) = target {
        let port = inbound.ports.get(index).ok_or_else(|| end::no_original_destination(None))?;
        record.port = port.port.to_string();
        record.port_is_known = true;
        record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
        return Ok(Place { port: port.port, app: port.app, server_first: port.protocol == Protocol::ServerFirst });
    }
    let destination = captured::destination(stream, record)?;
    let port = destination.port();
    record.port_is_known = world.is_own_port(port) || inbound.apps.contains_key(&port);
    if world.is_own_port(port) {
        return Err(end::because(Reason::Loop, None));
    }
    let app = inbound.apps.get(&port).copied().unwrap_or(destination);
    Ok(Place { port, app, server_first: inbound.server_first_ports.contains(&port) })
}

/// Step 2: one snapshot, the mode of the port, and what the client's first bytes are.
async fn judge(
    world: &World,
    mut stream: TcpStream,
    place: &Place,
    deadline: Instant,
    record: &mut ConnRecord,
) -> Result<Ending, Ending> {
    let snapshot = world.snapshot();
    let decided = snapshot.policy.mode(place.port);
    let mode = decided.mode;
    record.port_is_known |= snapshot.policy.lists(place.port);
    record.mode = mode.as_str();
    record.policy = decided.by.label();
    let sniff = match mode {
        // DISABLE means "do not look": no identity, whatever the client says.
        Mode::Disable => return forward(world, Replay::new(Vec::new(), stream), place, None, record).await,
        Mode::Strict => Sniff::FirstByte,
        Mode::Permissive => Sniff::WholeHello,
    };
    let mut app = None;
    let mut detector = Detector::new(sniff);
    if mode == Mode::Permissive && place.server_first {
        match server_first(world, &mut stream, &mut detector, place).await? {
            FirstWord::App(app) => {
                record.transport = NoTls::ServerFirst.transport();
                let client = Replay::new(detector.finish().seen, stream);
                return forward(world, client, place, Some(app), record).await;
            }
            FirstWord::Client(dialled) => app = dialled,
        }
    }
    match timeout_at(deadline, detector.run(&mut stream)).await {
        Ok(read) => read.map_err(|error| end::client_gone(&error))?,
        // Whatever has come so far is judged as it is.
        Err(_elapsed) => {}
    }
    let Detected { opening, seen, hello, .. } = detector.finish();
    record.sni = hello.and_then(|hello| hello.sni);
    let client = Replay::new(seen, stream);
    match decide(mode, opening) {
        Action::Terminate => terminate(world, client, place, Admission { snapshot, deadline, app }, record).await,
        Action::PassThrough(no_tls) => {
            record.transport = no_tls.transport();
            forward(world, client, place, app, record).await
        }
        Action::Refuse(reason) => {
            record.transport = if opening == portcullis_wire::Opening::Plain { "plaintext" } else { "-" };
            Err(end::because(reason, None))
        }
    }
}

/// Who spoke first on a server-first port.
enum FirstWord {
    /// The app did (or ended): it is no TLS, and PERMISSIVE lets it through.
    App(TcpStream),
    /// The client did, or nobody; the app may have been dialled already.
    Client(Option<TcpStream>),
}

/// After a short silence of the client the app is dialled, while detection goes on.
async fn server_first(
    world: &World,
    stream: &mut TcpStream,
    detector: &mut Detector,
    place: &Place,
) -> Result<FirstWord, Ending> {
    match timeout(defaults::SERVER_FIRST, detector.run(stream)).await {
        Ok(read) => {
            read.map_err(|error| end::client_gone(&error))?;
            return Ok(FirstWord::Client(None));
        }
        Err(_silence) if detector.has_bytes() => return Ok(FirstWord::Client(None)),
        Err(_silence) => {}
    }
    let app = dial_app(world, place).await?;
    // The app's deadline is the client's: a silent pair of ends is cut where detection would have been.
    let wait = world.settings.timeouts.handshake.saturating_sub(defaults::SERVER_FIRST);
    let app_spoke = tokio::select! {
        biased;
        read = detector.run(stream) => {
            read.map_err(|error| end::client_gone(&error))?;
            false
        }
        readable = timeout(wait, app.readable()) => matches!(readable, Ok(Ok(()))),
    };
    // Bytes of the client that came while the app was dialled are the client's first word.
    if app_spoke && !detector.has_bytes() { Ok(FirstWord::App(app)) } else { Ok(FirstWord::Client(Some(app))) }
}

/// What a handshake needs besides the connection.
struct Admission {
    snapshot: Snapshot,
    deadline: Instant,
    app: Option<TcpStream>,
}

/// Step 3: the handshake. Nothing reaches the app before the peer is known.
async fn terminate(
    world: &World,
    client: Replay<TcpStream>,
    place: &Place,
    admission: Admission,
    record: &mut ConnRecord,
) -> Result<Ending, Ending> {
    record.transport = "tls";
    let credentials = admission.snapshot.credentials.map_err(end::no_identity)?;
    let accepted = timeout_at(admission.deadline, server::accept(client, &credentials)).await;
    let (stream, peer) = match accepted {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return Err(end::handshake(&error)),
        Err(_elapsed) => return Err(end::because(Reason::HandshakeTimeout, None)),
    };
    record.transport = "mtls";
    record.src_identity = Some(peer.id.to_string());
    record.dst_identity = Some(world.settings.own_id.to_string());
    record.tls =
        Some(TlsFacts { version: peer.tls_version, group: peer.group.to_owned(), cipher: peer.cipher.to_owned() });
    forward(world, Secured(stream), place, admission.app, record).await
}

/// Step 4: the app, and bytes in both directions.
async fn forward<C: Duplex>(
    world: &World,
    client: C,
    place: &Place,
    app: Option<TcpStream>,
    record: &mut ConnRecord,
) -> Result<Ending, Ending> {
    let app = match app {
        Some(app) => app,
        None => match dial_app(world, place).await {
            Ok(app) => app,
            Err(ending) => {
                // The peer must not take the end of our connection for the app's answer.
                let _closed = client.reset_on_close();
                return Err(ending);
            }
        },
    };
    record.admit();
    Ok(relay(client, app, world.settings.timeouts, &record.bytes, &world.drain).await)
}

async fn dial_app(world: &World, place: &Place) -> Result<TcpStream, Ending> {
    let within: Duration = world.settings.timeouts.connect;
    dial(place.app, within).await.map_err(|error| end::unreachable(Dialled::App, place.app, &error))
}
