//! Outbound HBONE: streams on tunnels that are kept, one pool for each worker thread.
//!
//! A tunnel is used again only for what it was made for: the same address, the same expected identities, the same credentials; and only
//! while these still trust its peer. So a stream never rides on a tunnel that would not be opened anew now.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_hbone::{ClientTunnel, Connect, OpenError, Reserved, TunnelHandle, TunnelStream};
use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{ConnRecord, Direction, Ending, Metrics, OpenTunnel, TunnelFacts};
use portcullis_tls::client::connect_hbone;
use portcullis_tls::{CredentialReader, Credentials, PathSummary, Stream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::changes::ChangeWatch;
use crate::destination::Wanted;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{addresses, dial, record_peer};
use crate::state::ProxyState;

/// Tunnels that one worker has to one peer for one purpose, at most. Each has a hundred streams.
const MAX_TUNNELS: usize = 64;

thread_local! {
    /// A worker is a thread, and its tunnels are served by its tasks.
    static POOL: RefCell<Pool> = RefCell::default();
}

#[derive(Default)]
struct Pool(HashMap<SocketAddr, Vec<Arc<Purpose>>>);

/// What tunnels are made for.
struct Purpose {
    expected: ExpectedIds,
    /// Of the credentials.
    generation: u64,
    /// Held while a tunnel is made, so that a burst makes one and not many.
    tunnels: Mutex<Vec<Tunnel>>,
}

/// One tunnel that is kept.
#[derive(Clone)]
struct Tunnel {
    handle: TunnelHandle,
    facts: TunnelFacts,
    path: PathSummary,
}

impl Pool {
    fn purpose(&mut self, address: SocketAddr, expected: &ExpectedIds, generation: u64) -> Arc<Purpose> {
        let purposes = self.0.entry(address).or_default();
        if let Some(found) =
            purposes.iter().find(|purpose| purpose.generation == generation && purpose.expected == *expected)
        {
            return Arc::clone(found);
        }
        let tunnels = Mutex::default();
        let purpose = Arc::new(Purpose { expected: expected.clone(), generation, tunnels });
        purposes.push(Arc::clone(&purpose));
        // A new purpose is rare enough to look at the others.
        self.0.retain(|_, purposes| {
            purposes.retain(|purpose| Arc::strong_count(purpose) > 1 || purpose.is_in_use());
            !purposes.is_empty()
        });
        purpose
    }
}

impl Purpose {
    fn is_in_use(&self) -> bool {
        self.tunnels.try_lock().is_ok_and(|tunnels| tunnels.iter().any(|tunnel| tunnel.handle.is_open()))
    }
}

/// A destination that is reached through a tunnel.
struct Target<'a> {
    /// The app's own address and port, for `:authority`.
    destination: SocketAddr,
    expected: &'a ExpectedIds,
    credentials: &'a Arc<Credentials>,
}

/// Connects through a tunnel to the destination's sidecar. A name is looked up for each connection, and its addresses are tried until
/// a sidecar answers.
///
/// # Errors
/// Why there is no stream.
pub(crate) async fn connect(
    state: &ProxyState,
    wanted: &Wanted,
    expected: &ExpectedIds,
    credentials: &Arc<Credentials>,
    record: &mut ConnRecord,
) -> Result<(TunnelStream, PathSummary), Ending> {
    let destinations = match wanted {
        Wanted::Captured(address) => vec![*address],
        Wanted::Configured(upstream) => {
            addresses(&state.destinations.names, &upstream.host, upstream.port, state.settings.timeouts.connect)
                .await
                .map_err(|error| outcome::unreachable(DialTarget::Peer, wanted, &error))?
        }
    };
    let mut failed = Ending::new(Reason::PeerUnreachable, Some(format!("{wanted}: it has no address")));
    for destination in destinations {
        match open(state, &Target { destination, expected, credentials }, record).await {
            // Nothing listens there; whatever else a sidecar says is said.
            Err(ending) if ending.reason == Reason::PeerUnreachable.label() => failed = ending,
            result => return result,
        }
    }
    Err(failed)
}

/// Opens a stream to a destination, and records how. Once more on a new tunnel if the server has not looked at it.
///
/// # Errors
/// Why there is none.
async fn open(
    state: &ProxyState,
    target: &Target<'_>,
    record: &mut ConnRecord,
) -> Result<(TunnelStream, PathSummary), Ending> {
    let deadline = Instant::now() + state.settings.timeouts.handshake;
    let request = Connect { destination: target.destination, baggage: state.baggage.clone(), client: record.src_addr };
    let mut tries = 0;
    loop {
        tries += 1;
        let (reserved, tunnel) = reserve(state, target, deadline, record).await?;
        record.dst_addr = Some(target.destination);
        record.over_tunnel(&tunnel.facts);
        let error = match timeout_at(deadline, reserved.open(&request)).await {
            Ok(Ok(stream)) => return Ok((stream, tunnel.path)),
            Ok(Err(error)) => error,
            Err(_elapsed) => return Err(failed("the peer did not answer within timeouts.handshake".to_owned())),
        };
        match error {
            OpenError::NotTaken if tries == 1 => tunnel.handle.close(),
            OpenError::Refused(status) => {
                let error = format!("{}: the answer was {status}", target.destination);
                return Err(Ending::new(Reason::HboneRefused, Some(error)));
            }
            error => return Err(failed(error.to_string())),
        }
    }
}

fn failed(error: String) -> Ending {
    Ending::new(Reason::HboneFailed, Some(error))
}

/// A place on a tunnel: one that is there and would be made anew now, or a new one.
async fn reserve(
    state: &ProxyState,
    target: &Target<'_>,
    deadline: Instant,
    record: &mut ConnRecord,
) -> Result<(Reserved, Tunnel), Ending> {
    let address = SocketAddr::new(target.destination.ip(), state.settings.outbound.hbone_port);
    let generation = target.credentials.generation();
    let purpose = POOL.with_borrow_mut(|pool| pool.purpose(address, target.expected, generation));
    let Ok(mut tunnels) = timeout_at(deadline, purpose.tunnels.lock()).await else {
        return Err(Ending::new(Reason::HandshakeTimeout, None));
    };
    tunnels.retain(|tunnel| tunnel.handle.is_open());
    for tunnel in &*tunnels {
        // Only of the tunnel that is used: this is done for each connection.
        if target.credentials.still_trusts(&tunnel.facts.peer, &tunnel.path).is_err() {
            tunnel.handle.close();
        } else if let Some(reserved) = tunnel.handle.reserve() {
            return Ok((reserved, tunnel.clone()));
        }
    }
    if tunnels.iter().filter(|tunnel| tunnel.handle.is_open()).count() >= MAX_TUNNELS {
        return Err(failed(format!("there are {MAX_TUNNELS} tunnels to {address}, and all are full")));
    }
    let tunnel = dial_tunnel(state, target, address, deadline, record).await?;
    let reserved = tunnel.handle.reserve().ok_or_else(|| failed("the peer takes no streams".to_owned()))?;
    tunnels.push(tunnel.clone());
    Ok((reserved, tunnel))
}

/// Makes a tunnel, and begins the task that moves its bytes.
async fn dial_tunnel(
    state: &ProxyState,
    target: &Target<'_>,
    address: SocketAddr,
    deadline: Instant,
    record: &mut ConnRecord,
) -> Result<Tunnel, Ending> {
    record.dst_addr = Some(address);
    if state.is_own_outbound(address) {
        return Err(Ending::new(Reason::Loop, Some(address.to_string())));
    }
    let changes = state.changes.subscribe();
    let stream = dial(address, state.settings.timeouts.connect)
        .await
        .map_err(|error| outcome::unreachable(DialTarget::Peer, address, &error))?;
    record.transport = "tls";
    let began = Instant::now();
    let (stream, peer) = match timeout_at(deadline, connect_hbone(stream, target.credentials, target.expected)).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Err(outcome::handshake(&error, Direction::Outbound)),
        Err(_elapsed) => return Err(Ending::new(Reason::HandshakeTimeout, None)),
    };
    record_peer(state, record, &peer, began);
    let facts = record.tunnel_facts().ok_or_else(|| failed("there is no peer".to_owned()))?;
    let (handle, connection) = match timeout_at(deadline, portcullis_hbone::connect(stream)).await {
        Ok(Ok(tunnel)) => tunnel,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_elapsed) => return Err(Ending::new(Reason::HandshakeTimeout, None)),
    };
    let open = state.metrics.tunnels.opened(Direction::Outbound);
    let serving = Serving {
        handle: handle.clone(),
        generation: target.credentials.generation(),
        metrics: state.metrics.clone(),
        credentials: state.credentials.clone(),
        changes,
        _open: open,
    };
    drop(tokio::spawn(serving.run(connection)));
    Ok(Tunnel { handle, facts, path: peer.path })
}

/// What the task of a tunnel needs.
struct Serving {
    handle: TunnelHandle,
    generation: u64,
    metrics: Metrics,
    credentials: CredentialReader,
    changes: ChangeWatch,
    _open: Option<OpenTunnel>,
}

impl Serving {
    /// Moves the bytes of the tunnel until it ends. New credentials make it the last tunnel of its kind: its streams go on as long as
    /// each of them may, and it takes no more.
    async fn run(mut self, mut tunnel: ClientTunnel<Stream<TcpStream>>) {
        let end = loop {
            tokio::select! {
                biased;
                () = self.changes.next() => {
                    if self.credentials.latest().is_none_or(|now| now.generation() != self.generation) {
                        self.handle.close();
                    }
                }
                end = tunnel.end() => break end,
            }
        };
        self.metrics.tunnels.closed(Direction::Outbound, end.label());
    }
}
