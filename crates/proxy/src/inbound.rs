//! The life of one inbound connection.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_config::{Protocol, defaults};
use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountLimit, Slot};
use portcullis_net::socket::SecondHandle;
use portcullis_net::{Detected, Detector, Duplex, OrigDst, Replay, Sniff, is_own_address};
use portcullis_policy::{self as policy, Action, EffectivePolicy, Mode, PassThroughReason, Refusal, decide};
use portcullis_telemetry::{ConnRecord, Direction, Ending, ServerName};
use portcullis_tls::{Credentials, PathSummary, Unavailable, server};
use portcullis_wire::{Opening, proxy_v2};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::authorization::{self, Observed};
use crate::captured;
use crate::changes::ChangeWatch;
use crate::drain::{ConnectionGuard, Phase};
use crate::outcome::{self, DialTarget, Reason};
use crate::permits::Permits;
use crate::plaintext_response;
use crate::relay::{Closing, Endpoints, MeshStream, check_trust, dial, record_peer, relay};
use crate::state::{ProxyState, Snapshot};

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Listener {
    /// One configured port, by its index in `inbound.ports`.
    Port(usize),
    /// Redirected connections; each has its own original destination.
    Captured,
}

/// What the accept loop hands over with an accepted connection.
pub(crate) struct Admission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    pub(crate) listener: Listener,
    pub(crate) listener_limit: CountLimit,
}

/// Where a connection goes.
struct AppTarget {
    port: u16,
    app: SocketAddr,
    server_first: bool,
    /// The app expects a PROXY header.
    send_proxy_header: bool,
}

/// Serves one connection. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve(
    state: Arc<ProxyState>,
    accepted: Accepted,
    admission: Admission,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client } = accepted;
    let Admission { guard, permit, listener, listener_limit } = admission;
    let record = ConnRecord::open(&state.metrics, Direction::Inbound, client.get());
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), stream, listener, listener_limit, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, path, permits: _permits, port, changes }) => {
                let reauthorize = |state: &ProxyState, record: &mut ConnRecord| {
                    reauthorize(state, record, port, path.as_ref()).map(Closing::Now)
                };
                relay(&state, &mut endpoints, &mut record, changes, reauthorize).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((guard, permit));
    }
}

/// Both endpoints of an admitted connection, and what it was admitted with.
struct Admitted {
    endpoints: Endpoints<MeshStream<Replay<TcpStream>>, TcpStream>,
    path: Option<PathSummary>,
    permits: Permits,
    port: u16,
    changes: ChangeWatch,
}

/// Returns an ending if the policy and the credentials now in force would refuse a new connection like this one.
fn reauthorize(state: &ProxyState, record: &mut ConnRecord, port: u16, path: Option<&PathSummary>) -> Option<Ending> {
    let policy = state.policy.load();
    let decided = policy.mode(port);
    if !policy::admit(decided.mode, record.peer.is_some()) {
        record.mode = decided.mode.as_str();
        record.policy = Arc::clone(&decided.label);
        return Some(Ending::new(Reason::PolicyChanged, None));
    }
    if let Some(refused) = authorization::check(&policy, decided.mode, record, port) {
        record.mode = decided.mode.as_str();
        return Some(Ending::new(Reason::PolicyChanged, refused.error));
    }
    check_trust(state, record, path?)
}

/// Everything that happens before the first byte of the client reaches the app. Returns the record, which outlives this future.
async fn admit(
    state: Arc<ProxyState>,
    stream: TcpStream,
    listener: Listener,
    listener_limit: CountLimit,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let deadline = Instant::now() + state.settings.timeouts.handshake;
    let admitted = match app_target(&state, &stream, listener, &mut record) {
        Ok(target) => {
            let slot = state.connections.undecided().acquire(record.src_addr.ip());
            // `authorize` owns the stream. Without a descriptor for this handle, a forced end is a FIN instead of a reset.
            let second = SecondHandle::of(&stream).ok();
            let Snapshot { policy, credentials, changes } = state.snapshot();
            let mut attempt = Attempt {
                state: &state,
                policy: &policy,
                changes: &changes,
                target: &target,
                listener_limit: &listener_limit,
                slot: &slot,
                deadline,
                record: &mut record,
            };
            tokio::select! {
                biased;
                () = slot.evicted() => Err(Ending::new(Reason::TooManyHandshakes, None)),
                () = state.drain.reached(Phase::Forced) => {
                    // `authorize`, and with it the stream, has been dropped.
                    if let Some(second) = second {
                        second.reset();
                    }
                    Err(outcome::forced_before_admission())
                }
                authorized = attempt.authorize(stream, credentials) => authorized,
            }
        }
        Err(ending) => Err(ending),
    };
    if admitted.is_ok() {
        record.admit();
    }
    (record, admitted)
}

/// Step 1: finds the app. A destination that is a port of this proxy is refused.
fn app_target(
    state: &ProxyState,
    stream: &TcpStream,
    listener: Listener,
    record: &mut ConnRecord,
) -> Result<AppTarget, Ending> {
    let inbound = &state.settings.inbound;
    if let Listener::Port(index) = listener {
        let port = inbound.ports.get(index).ok_or_else(|| outcome::no_original_destination(None))?;
        record.port = Some(port.port);
        record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
        record.set_app(port.app);
        return Ok(AppTarget {
            port: port.port,
            app: port.app,
            server_first: port.protocol == Protocol::ServerFirst,
            send_proxy_header: port.proxy_protocol,
        });
    }
    let destination = captured::destination(stream, record)?;
    let port = destination.port();
    if state.is_own_port(port) {
        return Err(Ending::new(Reason::Loop, None));
    }
    // A neighbour can route packets to us that are meant for other hosts, or for loopback. The redirect applies before the
    // kernel would drop them, and our dial would reach what listens for this host alone.
    let local_only = destination.ip().is_loopback() || destination.ip().is_unspecified();
    if local_only || !is_own_address(destination).unwrap_or(false) {
        return Err(Ending::new(Reason::ForeignDestination, Some(destination.to_string())));
    }
    let app = inbound.apps.get(&port).copied().unwrap_or(destination);
    record.set_app(app);
    Ok(AppTarget {
        port,
        app,
        server_first: inbound.server_first_ports.contains(&port),
        send_proxy_header: inbound.proxy_protocol_ports.contains(&port),
    })
}

/// One connection that is being authorised, and what that needs.
struct Attempt<'a> {
    state: &'a ProxyState,
    /// The policy of the snapshot that this connection is decided with.
    policy: &'a EffectivePolicy,
    /// Reports every change after that snapshot.
    changes: &'a ChangeWatch,
    target: &'a AppTarget,
    listener_limit: &'a CountLimit,
    slot: &'a Slot,
    /// For everything until the connection is authorized.
    deadline: Instant,
    record: &'a mut ConnRecord,
}

/// The client's side of an authorized connection.
struct Client {
    stream: MeshStream<Replay<TcpStream>>,
    path: Option<PathSummary>,
    permits: Permits,
}

impl Client {
    /// A client without a verified identity, whose first bytes were read already.
    fn raw(seen: Vec<u8>, stream: TcpStream) -> Self {
        Self { stream: MeshStream::Raw(Replay::new(seen, stream)), path: None, permits: Permits::default() }
    }
}

/// Which side spoke first on a server-first port.
enum FirstSpeaker {
    /// The app did, or closed: this is not TLS, and PERMISSIVE lets it through.
    App(TcpStream),
    /// The client did, or neither; the app may have been dialled already.
    Client(Option<TcpStream>),
}

impl Attempt<'_> {
    /// Step 2: find the mode of the port, and detect what the client sends.
    async fn authorize(
        &mut self,
        mut stream: TcpStream,
        credentials: Result<Arc<Credentials>, Unavailable>,
    ) -> Result<Admitted, Ending> {
        let decided = self.policy.mode(self.target.port);
        let mode = decided.mode;
        self.record.mode = mode.as_str();
        self.record.policy = Arc::clone(&decided.label);
        if mode == Mode::Disable {
            // Passes through uninspected: there is no identity, whatever the client sends.
            self.slot.made_progress();
            self.record.no_mtls = Some(PassThroughReason::Disabled.label());
            return self.forward(None, Client::raw(Vec::new(), stream), None).await;
        }
        let mut app = None;
        // Under STRICT the first byte is enough: rustls parses the rest, and sends the alert.
        let mut detector = Detector::new(if mode == Mode::Strict { Sniff::FirstByte } else { Sniff::Hello });
        if mode == Mode::Permissive && self.target.server_first {
            match self.first_speaker(&mut stream, &mut detector).await? {
                FirstSpeaker::App(app) => {
                    let client = Client::raw(detector.finish().seen, stream);
                    self.record.sni = ServerName::Absent;
                    self.passes_through(PassThroughReason::ServerFirst);
                    return self.forward(Some(Opening::Plain), client, Some(app)).await;
                }
                FirstSpeaker::Client(dialled) => app = dialled,
            }
        }
        match timeout_at(self.deadline, detector.run(&mut stream)).await {
            Ok(read) => read.map_err(|error| outcome::client_gone(&error))?,
            // The decision is made on what has come so far.
            Err(_elapsed) => {}
        }
        let Detected { opening, seen, hello, eof } = detector.finish();
        self.record.sni = match hello {
            Some(hello) if hello.has_unusable_sni => ServerName::Unusable,
            hello => ServerName::read(hello.and_then(|hello| hello.sni)),
        };
        match decide(mode, opening) {
            Action::Terminate => {
                self.slot.made_progress();
                match self.terminate(Replay::new(seen, stream), credentials).await {
                    Ok(client) => self.forward(Some(opening), client, app).await,
                    Err(ending) => {
                        // With an identity it is a limit that refuses, which no policy changes.
                        if self.record.peer.is_none() {
                            self.observe(Some(opening), false);
                        }
                        Err(ending)
                    }
                }
            }
            Action::PassThrough(reason) => {
                self.passes_through(reason);
                self.forward(Some(opening), Client::raw(seen, stream), app).await
            }
            Action::Refuse(refusal) => {
                self.record.transport = if opening == Opening::Plain { "plaintext" } else { "-" };
                self.observe(Some(opening), false);
                if self.state.settings.inbound.http_hint && refusal == Refusal::PlaintextInStrict {
                    // The connection is refused whether or not the response could be sent.
                    let _sent = plaintext_response::respond(&mut stream, seen, self.deadline).await;
                }
                // Load balancers and health checks connect and close; that is not a silent client.
                if opening == Opening::Silent && eof {
                    return Err(Ending::new(Reason::ClientGone, None));
                }
                // It waited for the app to speak, which the app did not since plaintext is not authorized.
                if opening == Opening::Silent
                    && self.target.server_first
                    && let Some(denied) = authorization::check(self.policy, mode, self.record, self.target.port)
                {
                    return Err(denied);
                }
                Err(outcome::refused(refusal, mode, self.target.server_first))
            }
        }
    }

    fn passes_through(&mut self, reason: PassThroughReason) {
        self.slot.made_progress();
        self.record.transport = reason.transport();
        self.record.no_mtls = Some(reason.label());
    }

    /// Asks policies that are not enforced.
    fn observe(&self, opening: Option<Opening>, allowed: bool) {
        let (record, port) = (&*self.record, self.target.port);
        Observed { record, port, opening, allowed }.report(self.policy);
    }

    /// If the client sends nothing within [`defaults::SERVER_FIRST`], the app is dialled while detection goes on.
    async fn first_speaker(&self, stream: &mut TcpStream, detector: &mut Detector) -> Result<FirstSpeaker, Ending> {
        match timeout(defaults::SERVER_FIRST, detector.run(stream)).await {
            Ok(read) => {
                read.map_err(|error| outcome::client_gone(&error))?;
                return Ok(FirstSpeaker::Client(None));
            }
            Err(_silence) if detector.has_bytes() => return Ok(FirstSpeaker::Client(None)),
            Err(_silence) => {}
        }
        // Who is silent may be about to prove an identity. Where plaintext is not authorized, the app must not speak to it yet.
        // One who proves an identity and is denied then still gets nothing from the app, which was dialled in vain.
        let anonymous = authorization::facts(self.record, self.target.port).anonymous();
        if !self.policy.authorizer().authorize(&anonymous).is_allowed() {
            return Ok(FirstSpeaker::Client(None));
        }
        let app = self.dial_app().await?;
        // The app has as long as the client: if both stay silent, the connection ends where detection would have ended.
        let wait = self.state.settings.timeouts.handshake.saturating_sub(defaults::SERVER_FIRST);
        let app_spoke = tokio::select! {
            biased;
            read = detector.run(stream) => {
                read.map_err(|error| outcome::client_gone(&error))?;
                false
            }
            readable = timeout(wait, app.readable()) => matches!(readable, Ok(Ok(()))),
        };
        // If the client sent bytes while the app was dialled, the client spoke first.
        let app_spoke = app_spoke && !detector.has_bytes();
        Ok(if app_spoke { FirstSpeaker::App(app) } else { FirstSpeaker::Client(Some(app)) })
    }

    /// Step 3: the handshake. No byte reaches the app before the peer is verified.
    async fn terminate(
        &mut self,
        client: Replay<TcpStream>,
        credentials: Result<Arc<Credentials>, Unavailable>,
    ) -> Result<Client, Ending> {
        self.record.transport = "tls";
        let credentials = credentials.map_err(outcome::no_identity)?;
        let began = Instant::now();
        let (stream, peer) = match timeout_at(self.deadline, server::accept(client, &credentials)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return Err(outcome::handshake(&error, Direction::Inbound)),
            Err(_elapsed) => return Err(Ending::new(Reason::HandshakeTimeout, None)),
        };
        record_peer(self.state, self.record, &peer, began);
        let stream = MeshStream::Secured(stream);
        let mut permits = Permits::default();
        if self.state.per_identity.is_limited() {
            let Some(permit) = self.state.per_identity.try_acquire(&peer.id) else {
                let _closed = stream.reset_on_close();
                return Err(Ending::new(Reason::TooManyOfPeer, None));
            };
            permits = Permits::of_peer(permit);
        }
        Ok(Client { stream, path: Some(peer.path), permits })
    }

    /// Step 4: authorize, and connect to the app, unless it was dialled already. `opening` is `None` under DISABLE.
    async fn forward(
        &mut self,
        opening: Option<Opening>,
        client: Client,
        app: Option<TcpStream>,
    ) -> Result<Admitted, Ending> {
        let Client { stream, path, permits } = client;
        let (port, mode) = (self.target.port, self.policy.mode(self.target.port).mode);
        let refused = authorization::check(self.policy, mode, self.record, port);
        self.observe(opening, refused.is_none());
        // The handshake may have taken seconds: what came into force meanwhile counts before the app is dialled.
        let refused = match refused {
            None if self.changes.has_changed() => reauthorize(self.state, self.record, port, path.as_ref()),
            refused => refused,
        };
        if let Some(refused) = refused {
            let _closed = stream.reset_on_close();
            return Err(refused);
        }
        // Only now: a limit of the listener counts authorized connections, so that silent ones cannot use it up.
        let Some(listener) = self.listener_limit.try_acquire() else {
            let _closed = stream.reset_on_close();
            return Err(Ending::new(Reason::TooManyOnListener, None));
        };
        match self.connect_app(app).await {
            Ok(app) => Ok(Admitted {
                endpoints: Endpoints { client: stream, server: app },
                path,
                permits: permits.with_listener(listener),
                port,
                changes: self.changes.clone(),
            }),
            Err(ending) => {
                // The peer must not mistake our close for the app's answer.
                let _closed = stream.reset_on_close();
                Err(ending)
            }
        }
    }

    async fn connect_app(&self, dialled: Option<TcpStream>) -> Result<TcpStream, Ending> {
        let app = match dialled {
            Some(app) => app,
            None => self.dial_app().await?,
        };
        if self.target.send_proxy_header { self.send_proxy_header(app).await } else { Ok(app) }
    }

    /// Sends the PROXY header, before any byte of the client.
    async fn send_proxy_header(&self, mut app: TcpStream) -> Result<TcpStream, Ending> {
        let record = &*self.record;
        let peer = record.peer.as_ref().zip(record.tls_version());
        let peer = peer.map(|(id, tls_version)| proxy_v2::Peer { spiffe_id: id.as_str(), tls_version });
        let destination = record.dst_addr.ok_or_else(|| outcome::no_original_destination(None))?;
        let unwritable = |error: &std::io::Error| outcome::unreachable(DialTarget::App, self.target.app, error);
        let header = proxy_v2::header(record.src_addr, destination, peer)
            .ok_or_else(|| unwritable(&std::io::ErrorKind::InvalidData.into()))?;
        match timeout(self.state.settings.timeouts.connect, app.write_all(&header)).await {
            Ok(written) => written.map_err(|error| unwritable(&error))?,
            Err(_elapsed) => return Err(unwritable(&std::io::ErrorKind::TimedOut.into())),
        }
        Ok(app)
    }

    async fn dial_app(&self) -> Result<TcpStream, Ending> {
        let app = self.target.app;
        dial(app, self.state.settings.timeouts.connect)
            .await
            .map_err(|error| outcome::unreachable(DialTarget::App, app, &error))
    }
}
