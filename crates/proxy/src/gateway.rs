//! The life of one connection from outside of the mesh: its client has no identity, its server is reached as an outbound
//! destination is.
//!
//! PeerAuthentication does not apply: who listens for outsiders cannot demand certificates of the mesh from them.
//! AuthorizationPolicies of this workload do, at the listener's port, before the server is dialled.

mod external_client;
mod first_bytes;

use std::sync::Arc;

use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountLimit, Slot};
use portcullis_net::socket::SecondHandle;
use portcullis_net::{Duplex, Replay};
use portcullis_telemetry::{ConnRecord, Direction, Ending, ServerName};
use portcullis_tls::{OneWayServer, PathSummary, accept_one_way};
use portcullis_wire::proxy_header::Origin;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use self::external_client::ExternalClient;
use self::first_bytes::{FirstBytes, Hello};
use crate::changes::ChangeWatch;
use crate::connect::Connected;
use crate::destination::OutboundTarget;
use crate::drain::{ConnectionGuard, Phase};
use crate::gateway_listener::GatewayRouter;
use crate::outbound;
use crate::outcome::{self, Reason};
use crate::permits::Permits;
use crate::relay::{Closing, Endpoints, MeshStream, relay};
use crate::routing_decision::{RoutingDecision, after_change};
use crate::state::{ProxyState, Snapshot};

/// What the accept loop hands over with an accepted connection.
pub(crate) struct GatewayAdmission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    /// By its index in `gateway.listeners`.
    pub(crate) listener: usize,
    pub(crate) listener_limit: CountLimit,
}

/// Serves one connection. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve(
    state: Arc<ProxyState>,
    accepted: Accepted,
    admission: GatewayAdmission,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client } = accepted;
    let GatewayAdmission { guard, permit, listener, listener_limit } = admission;
    let record = ConnRecord::open(&state.metrics, Direction::Outbound, client.get());
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), stream, listener, listener_limit, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, held, changes }) => {
                let reauthorize = |state: &ProxyState, record: &mut ConnRecord| {
                    if let Some(refused) = reauthorize(state, record, &held.external_client) {
                        return Some(Closing::Now(refused));
                    }
                    after_change(state, record, held.routing.as_deref(), held.path.as_ref())
                };
                relay(&state, &mut endpoints, &mut record, changes, reauthorize).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((guard, permit));
    }
}

type ClientStream = MeshStream<Replay<TcpStream>>;

/// Both endpoints of an admitted connection, and what it was admitted with.
struct Admitted {
    endpoints: Endpoints<ClientStream, MeshStream<TcpStream>>,
    /// Boxed, since it is held as long as the connection is open.
    held: Box<Held>,
    changes: ChangeWatch,
}

struct Held {
    external_client: ExternalClient,
    path: Option<PathSummary>,
    routing: Option<Box<RoutingDecision>>,
    _permits: Permits,
}

/// Returns an ending if the policy now in force would refuse a new client like this one.
fn reauthorize(state: &ProxyState, record: &mut ConnRecord, external_client: &ExternalClient) -> Option<Ending> {
    let refused = external_client.check(&state.policy.load(), record)?;
    Some(Ending::new(Reason::PolicyChanged, refused.error))
}

/// Everything that happens before the first byte of the client reaches the server. Returns the record, which outlives this
/// future.
async fn admit(
    state: Arc<ProxyState>,
    stream: TcpStream,
    listener: usize,
    listener_limit: CountLimit,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let deadline = Instant::now() + state.settings.timeouts.handshake;
    let slot = state.connections.undecided().acquire(record.src_addr.ip());
    // `authorize` owns the stream. Without a descriptor for this handle, a forced end is a FIN instead of a reset.
    let second = SecondHandle::of(&stream).ok();
    let attempt = Attempt {
        state: &state,
        listener,
        listener_limit: &listener_limit,
        slot: &slot,
        deadline,
        record: &mut record,
    };
    let admitted = tokio::select! {
        biased;
        () = slot.evicted() => Err(Ending::new(Reason::TooManyHandshakes, None)),
        () = state.drain.reached(Phase::Forced) => {
            // `authorize`, and with it the stream, has been dropped.
            if let Some(second) = second {
                second.reset();
            }
            Err(outcome::forced_before_admission())
        }
        admitted = attempt.authorize(stream) => admitted,
    };
    if admitted.is_ok() {
        record.admit();
    }
    (record, admitted)
}

/// One connection that is being authorized, and what that needs.
struct Attempt<'a> {
    state: &'a Arc<ProxyState>,
    listener: usize,
    listener_limit: &'a CountLimit,
    slot: &'a Slot,
    /// For everything until the client's TLS is established.
    deadline: Instant,
    record: &'a mut ConnRecord,
}

impl Attempt<'_> {
    async fn authorize(mut self, stream: TcpStream) -> Result<Admitted, Ending> {
        let listener = self.state.gateway.get(self.listener).ok_or_else(|| outcome::no_original_destination(None))?;
        let external_client = ExternalClient::new(&stream, self.record);
        let Snapshot { policy, changes, .. } = self.state.snapshot();
        let client = self.client(stream, listener).await?;

        let refused = external_client.check(&policy, self.record);
        external_client.observe(&policy, self.record, refused.is_none());
        // The handshake may have taken seconds: what came into force meanwhile counts before the server is dialled.
        let refused = match refused {
            None if changes.has_changed() => reauthorize(self.state, self.record, &external_client),
            refused => refused,
        };
        if let Some(refused) = refused {
            return Err(reset(&client, refused));
        }
        // Only now: a limit of the listener counts authorized connections, so that silent ones cannot use it up.
        let Some(permit) = self.listener_limit.try_acquire() else {
            return Err(reset(&client, Ending::new(Reason::TooManyOnListener, None)));
        };
        let Some(upstream) = listener.route(self.record.sni.name()) else {
            let error = self.record.sni.name().map_or_else(|| "no server name".to_owned(), str::to_owned);
            return Err(reset(&client, Ending::new(Reason::NoGatewayRoute, Some(error))));
        };
        match outbound::reach(self.state, &OutboundTarget::Configured(Arc::clone(upstream)), self.record).await {
            // The client was decided before the destination, so the changes are those since then.
            Ok((Connected { server, path, routing }, _later)) => Ok(Admitted {
                endpoints: Endpoints { client, server },
                held: Box::new(Held {
                    external_client,
                    path,
                    routing,
                    _permits: Permits::default().with_listener(permit),
                }),
                changes,
            }),
            // The client must not mistake our close for the server's answer.
            Err(ending) => Err(reset(&client, ending)),
        }
    }

    /// The client's side: its PROXY header and its TLS, if the listener has them.
    async fn client(&mut self, stream: TcpStream, listener: &GatewayRouter) -> Result<ClientStream, Ending> {
        let mut first = FirstBytes::new(stream, self.deadline);
        let from_balancer = listener.is_balancer(self.record.src_addr.ip());
        if from_balancer && let Origin::Client { source, .. } = first.proxy_header().await? {
            self.record.relayed_for(source);
        }
        if !listener.has_tls() {
            self.slot.made_progress();
            self.record.transport = "plaintext";
            self.record.sni = ServerName::Absent;
            return Ok(MeshStream::Raw(first.into_stream()));
        }
        // One byte is cheap: who has sent no whole ClientHello is evicted before those who have.
        if first.tls(from_balancer).await? == Hello::Whole {
            self.slot.made_progress();
        }
        self.record.transport = "tls";
        // The files were read before the listener was served.
        let tls = self.state.gateway_servers.get(self.listener);
        let tls = tls.ok_or_else(|| Ending::new(Reason::NoIdentity, None))?;
        self.secure(first.into_stream(), &tls).await
    }

    async fn secure(&mut self, stream: Replay<TcpStream>, tls: &OneWayServer) -> Result<ClientStream, Ending> {
        match timeout_at(self.deadline, accept_one_way(stream, tls)).await {
            Ok(Ok((stream, outside))) => {
                self.record.sni = ServerName::read(outside.sni);
                Ok(MeshStream::Secured(stream))
            }
            Ok(Err(error)) => Err(outcome::external_client_handshake(&error)),
            Err(_elapsed) => Err(Ending::new(Reason::HandshakeTimeout, None)),
        }
    }
}

/// Resets the client when its stream is dropped.
fn reset(client: &ClientStream, ending: Ending) -> Ending {
    let _closed = client.reset_on_close();
    ending
}
