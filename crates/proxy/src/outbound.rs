//! The life of one outbound connection. It is decided once; after a failed handshake there is never plaintext.

use std::sync::Arc;

use portcullis_net::Duplex;
use portcullis_net::accept::Accepted;
use portcullis_net::admission::{ConnectionPermit, CountPermit};
use portcullis_telemetry::{ConnRecord, Direction, Ending};
use portcullis_tls::PathSummary;
use tokio::net::TcpStream;

use crate::captured;
use crate::changes::ChangeWatch;
use crate::connect::{Connected, connect};
use crate::destination::OutboundTarget;
use crate::drain::{ConnectionGuard, Phase};
use crate::outcome::{self, Reason};
use crate::relay::{Endpoints, MeshStream, relay};
use crate::routing_decision::{RoutingDecision, after_change};
use crate::state::ProxyState;

/// What a listener serves.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutboundListener {
    /// One configured upstream, by its index in `outbound.upstreams`.
    Upstream(usize),
    /// Redirected connections; the routes apply to each.
    Captured,
}

/// What the accept loop hands over with an accepted connection.
pub(crate) struct OutboundAdmission {
    pub(crate) guard: ConnectionGuard,
    pub(crate) permit: ConnectionPermit,
    pub(crate) listener: OutboundListener,
    pub(crate) listener_permit: CountPermit,
}

/// How often a connection is decided again because policy or directory changed while it was being made.
const MAX_DECISIONS: usize = 3;
/// What is said of a connection that would still be made in another way after the last one.
const CHANGES_TOO_OFTEN: &str = "policy or directory changed each time while it was being made";

/// Serves one connection. An idle connection holds this future, so it is kept small: a test pins its size.
pub(crate) fn serve(
    state: Arc<ProxyState>,
    accepted: Accepted,
    admission: OutboundAdmission,
) -> impl Future<Output = ()> + Send {
    let Accepted { stream, client } = accepted;
    let OutboundAdmission { guard, permit, listener, listener_permit } = admission;
    let record = ConnRecord::open(&state.metrics, Direction::Outbound, client.get());
    // Boxed, so that its memory is freed once the connection is admitted, and not held as long as it is open.
    let admitted = Box::pin(admit(Arc::clone(&state), stream, listener, record));
    async move {
        let (mut record, admitted) = admitted.await;
        let ending = match admitted {
            Ok(Admitted { mut endpoints, path, routing, changes }) => {
                let reauthorize = |state: &ProxyState, record: &mut ConnRecord| {
                    after_change(state, record, routing.as_deref(), path.as_ref())
                };
                relay(&state, &mut endpoints, &mut record, changes, reauthorize).await
            }
            Err(ending) => ending,
        };
        record.finish(&ending);
        drop((guard, permit, listener_permit));
    }
}

/// Both endpoints of an admitted connection, and what it was decided with.
struct Admitted {
    endpoints: Endpoints<TcpStream, MeshStream<TcpStream>>,
    path: Option<PathSummary>,
    routing: Option<Box<RoutingDecision>>,
    changes: ChangeWatch,
}

/// Everything that happens before the first byte of the app reaches the server. Returns the record, which outlives this future.
async fn admit(
    state: Arc<ProxyState>,
    stream: TcpStream,
    listener: OutboundListener,
    mut record: ConnRecord,
) -> (ConnRecord, Result<Admitted, Ending>) {
    let connected = tokio::select! {
        biased;
        () = state.drain.reached(Phase::Forced) => Err(outcome::forced_before_admission()),
        connected = decide(&state, &stream, listener, &mut record) => connected,
    };
    let admitted = match connected {
        Ok((Connected { server, path, routing }, changes)) => {
            record.admit();
            Ok(Admitted { endpoints: Endpoints { client: stream, server }, path, routing, changes })
        }
        Err(ending) => {
            // The app must not mistake a failure for an empty answer.
            let _closed = stream.reset_on_close();
            Err(ending)
        }
    };
    (record, admitted)
}

/// Finds the destination and connects to it, from one snapshot. What came into force meanwhile counts before the first byte of the
/// app is sent: the connection is made anew then.
async fn decide(
    state: &Arc<ProxyState>,
    stream: &TcpStream,
    listener: OutboundListener,
    record: &mut ConnRecord,
) -> Result<(Connected, ChangeWatch), Ending> {
    let target = match listener {
        OutboundListener::Captured => {
            let address = captured::destination(stream, record)?;
            if state.would_loop_back(address) {
                return Err(Ending::new(Reason::Loop, None));
            }
            OutboundTarget::Captured(address)
        }
        OutboundListener::Upstream(index) => {
            let upstream = state.upstreams.get(index).ok_or_else(|| outcome::no_original_destination(None))?;
            record.port = Some(upstream.port);
            OutboundTarget::Configured(Arc::clone(upstream))
        }
    };
    reach(state, &target, record).await
}

/// Finds the destination and connects to it, as above.
pub(crate) async fn reach(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    record: &mut ConnRecord,
) -> Result<(Connected, ChangeWatch), Ending> {
    let mut decisions = 0;
    loop {
        decisions += 1;
        let snapshot = state.snapshot();
        let destination = state.destinations.find(target).await?;
        let connected = connect(state, target, &destination, snapshot.credentials, record).await;
        let is_stale = snapshot.changes.has_changed()
            && match &connected {
                Ok(connected) => {
                    connected.routing.as_ref().is_some_and(|routing| routing.reevaluate(state, record).is_some())
                }
                Err(_) => true,
            };
        if is_stale && decisions < MAX_DECISIONS {
            record.forget_server();
            continue;
        }
        return match connected {
            Ok(_) if is_stale => Err(Ending::new(Reason::PolicyChanged, Some(CHANGES_TOO_OFTEN.to_owned()))),
            connected => Ok((connected?, snapshot.changes)),
        };
    }
}
