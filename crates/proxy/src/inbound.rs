//! The life of one inbound connection.

use std::sync::Arc;

use portcullis_config::defaults;
use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountLimit, Slot};
use portcullis_net::socket::SecondHandle;
use portcullis_net::{Detected, Detector, Duplex, OrigDst, Replay, Sniff};
use portcullis_policy::{Action, Mode, PassThroughReason, Refusal, decide};
use portcullis_telemetry::{ConnRecord, Direction, Ending, ServerName};
use portcullis_tls::{Credentials, PathSummary, Unavailable, server};
use portcullis_wire::Opening;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::authorization;
use crate::captured;
use crate::changes::ChangeWatch;
use crate::drain::{ConnectionGuard, Phase};
use crate::outcome::{self, Reason};
use crate::permits::Permits;
use crate::plaintext_response;
use crate::relay::{Closing, Endpoints, MeshStream, record_peer, relay};
use crate::state::{ProxyState, Snapshot};
use crate::to_app::{AppTarget, Carrier, ReachedApp, ToApp, reauthorize};

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InboundListener {
    /// One configured port, by its index in `inbound.ports`.
    Port(usize),
    /// Redirected connections; each has its own original destination.
    Captured,
}

/// What the accept loop hands over with an accepted connection.
pub(crate) struct InboundAdmission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    pub(crate) listener: InboundListener,
    pub(crate) listener_limit: CountLimit,
}

/// Serves one connection. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve(
    state: Arc<ProxyState>,
    accepted: Accepted,
    admission: InboundAdmission,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client } = accepted;
    let InboundAdmission { guard, permit, listener, listener_limit } = admission;
    let record = ConnRecord::open(&state.metrics, Direction::Inbound, client.get());
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), stream, listener, listener_limit, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, path, permits: _permits, port, changes }) => {
                let reauthorize = |state: &ProxyState, record: &mut ConnRecord| {
                    reauthorize(state, record, port, Carrier::Tcp, path.as_ref()).map(Closing::Now)
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

/// Everything that happens before the first byte of the client reaches the app. Returns the record, which outlives this future.
async fn admit(
    state: Arc<ProxyState>,
    stream: TcpStream,
    listener: InboundListener,
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
                app: ToApp {
                    state: &state,
                    policy: &policy,
                    changes: &changes,
                    target: &target,
                    limit: &listener_limit,
                    carrier: Carrier::Tcp,
                },
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
    listener: InboundListener,
    record: &mut ConnRecord,
) -> Result<AppTarget, Ending> {
    let inbound = &state.settings.inbound;
    if let InboundListener::Port(index) = listener {
        let port = inbound.ports.get(index).ok_or_else(|| outcome::no_original_destination(None))?;
        record.port = Some(port.port);
        record.dst_addr = stream.local_addr().ok().map(|local| OrigDst::new(local).get());
        record.set_app(port.app);
        return Ok(AppTarget::of_port(port));
    }
    let destination = captured::destination(stream, record)?;
    let target = AppTarget::of_destination(state, destination)?;
    record.set_app(target.app);
    Ok(target)
}

/// One connection that is being authorised, and what that needs.
struct Attempt<'a> {
    app: ToApp<'a>,
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
        let decided = self.app.policy.mode(self.app.target.port);
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
        if mode == Mode::Permissive && self.app.target.server_first {
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
                            self.app.observe(self.record, Some(opening), false);
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
                Err(self.refuse(refusal, &mut stream, Detected { opening, seen, hello: None, eof }).await)
            }
        }
    }

    /// Why the connection is refused by its mode. Answers plaintext HTTP with a hint, if that is configured.
    async fn refuse(&mut self, refusal: Refusal, stream: &mut TcpStream, detected: Detected) -> Ending {
        let Detected { opening, seen, eof, .. } = detected;
        let target = self.app.target;
        self.record.transport = if opening == Opening::Plain { "plaintext" } else { "-" };
        self.app.observe(self.record, Some(opening), false);
        if self.app.state.settings.inbound.http_hint && refusal == Refusal::PlaintextInStrict {
            // The connection is refused whether or not the response could be sent.
            let _sent = plaintext_response::respond(stream, seen, self.deadline).await;
        }
        let mode = self.app.policy.mode(target.port).mode;
        if opening == Opening::Silent {
            // Load balancers and health checks connect and close; that is not a silent client.
            if eof {
                return Ending::new(Reason::ClientGone, None);
            }
            // It waited for the app to speak, which the app did not since plaintext is not authorized.
            if target.server_first
                && let Some(denied) = authorization::check(self.app.policy, mode, self.record, target.port)
            {
                return denied;
            }
        }
        outcome::refused(refusal, mode, target.server_first)
    }

    fn passes_through(&mut self, reason: PassThroughReason) {
        self.slot.made_progress();
        self.record.transport = reason.transport();
        self.record.no_mtls = Some(reason.label());
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
        let anonymous = authorization::facts(self.record, self.app.target.port).anonymous();
        if !self.app.policy.authorizer().authorize(&anonymous).is_allowed() {
            return Ok(FirstSpeaker::Client(None));
        }
        let app = self.app.dial().await?;
        // The app has as long as the client: if both stay silent, the connection ends where detection would have ended.
        let wait = self.app.state.settings.timeouts.handshake.saturating_sub(defaults::SERVER_FIRST);
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
        record_peer(self.app.state, self.record, &peer, began);
        let stream = MeshStream::Secured(stream);
        let mut permits = Permits::default();
        if self.app.state.per_identity.is_limited() {
            let Some(permit) = self.app.state.per_identity.try_acquire(&peer.id) else {
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
        match self.app.reach(self.record, opening, path.as_ref(), app).await {
            Ok(ReachedApp { app, permit }) => Ok(Admitted {
                endpoints: Endpoints { client: stream, server: app },
                path,
                permits: permits.with_listener(permit),
                port: self.app.target.port,
                changes: self.app.changes.clone(),
            }),
            Err(ending) => {
                // The peer must not mistake our close for the app's answer.
                let _closed = stream.reset_on_close();
                Err(ending)
            }
        }
    }
}
