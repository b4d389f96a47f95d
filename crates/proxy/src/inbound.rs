//! The story of one inbound connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_config::{Protocol, defaults};
use portcullis_net::accept::Accepted;
use portcullis_net::socket::SecondHandle;
use portcullis_net::{Detected, Detector, Duplex, OrigDst, Replay, Sniff, is_own_address};
use portcullis_policy::{self as policy, Action, Mode, NoTls, Reason, decide};
use portcullis_telemetry::{ConnRecord, Direction, Ending};
use portcullis_tls::{Credentials, PathSummary, Unavailable, server};
use portcullis_wire::{Opening, proxy_v2};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::captured;
use crate::changes::Changes;
use crate::drain::{ListenerPlace, LiveGuard, Phase};
use crate::end::{self, Dialled};
use crate::handshakes::Heard;
use crate::hint;
use crate::peers;
use crate::relay::{Ends, MeshEnd, authenticated, dial, distrusted, relay};
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
    /// Whether it wants to be told who its client is.
    told: bool,
    /// How many the listener may have, if it has a limit.
    limit: Option<Arc<Semaphore>>,
}

/// The future is what an idle connection holds, so it is kept small: a test has its size.
pub(crate) fn serve(
    world: Arc<World>,
    accepted: Accepted,
    live: LiveGuard,
    duty: (Target, Option<Arc<Semaphore>>),
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client, permit } = accepted;
    let record = ConnRecord::open(&world.metrics, Direction::Inbound, client.get());
    // Boxed, so that what it takes to get that far is given back then, and not held as long as the connection lives.
    let admitted = Box::pin(admit(Arc::clone(&world), stream, duty, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut ends, path, place: _place, port, changes }) => {
                let withdrawn = |world: &World, record: &mut ConnRecord| withdrawn(world, record, port, path.as_ref());
                relay(&world, &mut ends, &mut record, changes, withdrawn).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((live, permit));
    }
}

/// The two ends of a connection that may pass, and what it was let through with.
struct Admitted {
    ends: Ends<MeshEnd<Replay<TcpStream>>, TcpStream>,
    path: Option<PathSummary>,
    place: peers::Place,
    port: u16,
    changes: Changes,
}

/// Whether a new connection like this one would be refused by the policy and the credentials in force now.
fn withdrawn(world: &World, record: &mut ConnRecord, port: u16, path: Option<&PathSummary>) -> Option<Ending> {
    let policy = world.policy.load();
    let decided = policy.mode(port);
    if !policy::admit(decided.mode, record.peer.is_some()) {
        record.mode = decided.mode.as_str();
        record.policy = Arc::clone(&decided.label);
        return Some(end::because(Reason::PolicyChanged, None));
    }
    distrusted(world, record, path?)
}

/// Everything up to the first byte for the app.
async fn admit(
    world: Arc<World>,
    stream: TcpStream,
    (target, limit): (Target, Option<Arc<Semaphore>>),
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let deadline = Instant::now() + world.settings.timeouts.handshake;
    let admitted = match place(&world, &stream, target, &mut record) {
        Ok(place) => {
            let place = Place { limit, ..place };
            let mut slot = world.handshakes.enter(record.src_addr.ip());
            let (heard, mut lost) = slot.split();
            // Whoever judges owns the stream. Without a descriptor for this, the forced end is a FIN.
            let second = SecondHandle::of(&stream).ok();
            tokio::select! {
                biased;
                () = lost.wait() => Err(end::because(Reason::TooManyHandshakes, None)),
                () = world.drain.reached(Phase::Forced) => {
                    // The judge, and with it the stream, is gone by now.
                    if let Some(second) = second {
                        second.reset();
                    }
                    Err(end::forced_early())
                }
                judged = judge(&world, stream, &place, deadline, &heard, &mut record) => judged,
            }
        }
        Err(ending) => Err(ending),
    };
    if admitted.is_ok() {
        record.admit();
    }
    (record, admitted)
}

/// Step 1: where was it going? Our own ports are refused.
fn place(world: &World, stream: &TcpStream, target: Target, record: &mut ConnRecord) -> Result<Place, Ending> {
    let inbound = &world.settings.inbound;
    if let Target::Port(index) = target {
        let port = inbound.ports.get(index).ok_or_else(|| end::no_original_destination(None))?;
        record.port = Some(port.port);
        record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
        record.name_app(port.app);
        let server_first = port.protocol == Protocol::ServerFirst;
        return Ok(Place { port: port.port, app: port.app, server_first, told: port.proxy_protocol, limit: None });
    }
    let destination = captured::destination(stream, record)?;
    let port = destination.port();
    if world.is_own_port(port) {
        return Err(end::because(Reason::Loop, None));
    }
    // A neighbour can route to us what is meant for others, and what is meant for loopback. A redirect takes it before the
    // kernel would drop it, and a dial of ours would reach what listens for this host alone.
    let local_only = destination.ip().is_loopback() || destination.ip().is_unspecified();
    if local_only || !is_own_address(destination).unwrap_or(false) {
        return Err(end::because(Reason::ForeignDestination, Some(destination.to_string())));
    }
    let app = inbound.apps.get(&port).copied().unwrap_or(destination);
    record.name_app(app);
    let server_first = inbound.server_first_ports.contains(&port);
    let told = inbound.proxy_protocol_ports.contains(&port);
    Ok(Place { port, app, server_first, told, limit: None })
}

/// Step 2: one snapshot, the mode of the port, and what the client's first bytes are.
async fn judge(
    world: &World,
    mut stream: TcpStream,
    place: &Place,
    deadline: Instant,
    heard: &Heard<'_>,
    record: &mut ConnRecord,
) -> Result<Admitted, Ending> {
    let Snapshot { policy, credentials, changes } = world.snapshot();
    let decided = policy.mode(place.port);
    let mode = decided.mode;
    record.mode = mode.as_str();
    record.policy = Arc::clone(&decided.label);
    if mode == Mode::Disable {
        // "Do not look": no identity, whatever the client says.
        heard.tell();
        record.no_mtls = Some(NoTls::Disabled.label());
        return forward(world, (raw(Vec::new(), stream), peers::Place::default()), place, None, changes, record).await;
    }
    let mut app = None;
    // Under STRICT rustls judges whatever begins like TLS, and sends the alert.
    let mut detector = Detector::new(if mode == Mode::Strict { Sniff::FirstByte } else { Sniff::Hello });
    if mode == Mode::Permissive && place.server_first {
        match server_first(world, &mut stream, &mut detector, place).await? {
            FirstWord::App(app) => {
                heard.tell();
                record.transport = NoTls::ServerFirst.transport();
                record.no_mtls = Some(NoTls::ServerFirst.label());
                return forward(
                    world,
                    (raw(detector.finish().seen, stream), peers::Place::default()),
                    place,
                    Some(app),
                    changes,
                    record,
                )
                .await;
            }
            FirstWord::Client(dialled) => app = dialled,
        }
    }
    match timeout_at(deadline, detector.run(&mut stream)).await {
        Ok(read) => read.map_err(|error| end::client_gone(&error))?,
        // Whatever has come so far is judged as it is.
        Err(_elapsed) => {}
    }
    let Detected { opening, seen, hello, eof } = detector.finish();
    record.sni = hello.and_then(|hello| hello.sni);
    let action = decide(mode, opening);
    if !matches!(action, Action::Refuse(_)) {
        heard.tell();
    }
    match action {
        Action::Terminate => {
            let client = Replay::new(seen, stream);
            let (client, path, peer) = terminate(world, client, credentials, deadline, record).await?;
            let admitted = forward(world, (client, peer), place, app, changes, record).await?;
            Ok(Admitted { path: Some(path), ..admitted })
        }
        Action::PassThrough(no_tls) => {
            record.transport = no_tls.transport();
            record.no_mtls = Some(no_tls.label());
            forward(world, (raw(seen, stream), peers::Place::default()), place, app, changes, record).await
        }
        Action::Refuse(reason) => {
            record.transport = if opening == Opening::Plain { "plaintext" } else { "-" };
            if world.settings.inbound.http_hint && reason == Reason::PlaintextInStrict {
                // Whether the client was told changes nothing about it.
                let _told = hint::answer(&mut stream, seen, deadline).await;
            }
            // Load balancers and health checks connect and go; that is no silence.
            let gone = opening == Opening::Silent && eof;
            Err(end::because(if gone { Reason::ClientGone } else { reason }, None))
        }
    }
}

fn raw(seen: Vec<u8>, stream: TcpStream) -> MeshEnd<Replay<TcpStream>> {
    MeshEnd::Raw(Replay::new(seen, stream))
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

/// Step 3: the handshake. Nothing reaches the app before the peer is known.
async fn terminate(
    world: &World,
    client: Replay<TcpStream>,
    credentials: Result<Arc<Credentials>, Unavailable>,
    deadline: Instant,
    record: &mut ConnRecord,
) -> Result<(MeshEnd<Replay<TcpStream>>, PathSummary, peers::Place), Ending> {
    record.transport = "tls";
    let credentials = credentials.map_err(end::no_identity)?;
    let began = Instant::now();
    let (stream, peer) = match timeout_at(deadline, server::accept(client, &credentials)).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(error)) => return Err(end::handshake(&error)),
        Err(_elapsed) => return Err(end::because(Reason::HandshakeTimeout, None)),
    };
    authenticated(world, record, &peer, began);
    let client = MeshEnd::Secured(stream);
    let Some(place) = world.peers.enter(&peer.id) else {
        let _closed = client.reset_on_close();
        return Err(end::because(Reason::TooManyOfPeer, None));
    };
    Ok((client, peer.path, place))
}

/// Step 4: the app, unless it was dialled already.
async fn forward(
    world: &World,
    (client, peer): (MeshEnd<Replay<TcpStream>>, peers::Place),
    place: &Place,
    app: Option<TcpStream>,
    changes: Changes,
    record: &ConnRecord,
) -> Result<Admitted, Ending> {
    // Only now: places of a listener are for those that may pass, or whoever is silent could take them all.
    let Some(listener) = ListenerPlace::take(place.limit.as_ref()) else {
        let _closed = client.reset_on_close();
        return Err(end::because(Reason::TooManyOnListener, None));
    };
    let dialled = match app {
        Some(app) => Ok(app),
        None => dial_app(world, place).await,
    };
    let dialled = match dialled {
        Ok(app) if place.told => introduce(world, place, app, record).await,
        dialled => dialled,
    };
    match dialled {
        Ok(app) => Ok(Admitted {
            ends: Ends { client, server: app },
            path: None,
            place: peer.with(listener),
            port: place.port,
            changes,
        }),
        Err(ending) => {
            // The peer must not take the end of our connection for the app's answer.
            let _closed = client.reset_on_close();
            Err(ending)
        }
    }
}

/// Tells the app who its client is, before any byte of the client's.
async fn introduce(world: &World, place: &Place, mut app: TcpStream, record: &ConnRecord) -> Result<TcpStream, Ending> {
    let peer = record.peer.as_ref().zip(record.tls_version());
    let peer = peer.map(|(id, tls_version)| proxy_v2::Peer { spiffe_id: id.as_str(), tls_version });
    let destination = record.dst_addr.ok_or_else(|| end::no_original_destination(None))?;
    let unwritable = |error: &io::Error| end::unreachable(Dialled::App, place.app, error);
    let header = proxy_v2::header(record.src_addr, destination, peer)
        .ok_or_else(|| unwritable(&io::Error::from(io::ErrorKind::InvalidData)))?;
    match timeout(world.settings.timeouts.connect, app.write_all(&header)).await {
        Ok(written) => written.map_err(|error| unwritable(&error))?,
        Err(_elapsed) => return Err(unwritable(&io::Error::from(io::ErrorKind::TimedOut))),
    }
    Ok(app)
}

async fn dial_app(world: &World, place: &Place) -> Result<TcpStream, Ending> {
    let within: Duration = world.settings.timeouts.connect;
    dial(place.app, within).await.map_err(|error| end::unreachable(Dialled::App, place.app, &error))
}
