//! Makes one tunnel, and moves its bytes until it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_hbone::{ClientTunnel, TunnelHandle};
use portcullis_identity::ExpectedIds;
use portcullis_telemetry::{Direction, Ending, Metrics, OpenTunnel, TunnelFacts};
use portcullis_tls::client::connect_hbone;
use portcullis_tls::{CredentialReader, Credentials, HandshakeFault, PathSummary, Stream};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::changes::ChangeWatch;
use crate::outcome::{self, DialTarget, Reason};
use crate::relay::{dial, note_peer};
use crate::state::ProxyState;

/// What a tunnel is dialled for: a stream uses a tunnel only under an equal key.
#[derive(Clone)]
pub(super) struct PoolKey {
    /// Where tunnels end.
    pub(super) address: SocketAddr,
    pub(super) expected: ExpectedIds,
    pub(super) credentials: Arc<Credentials>,
}

impl PoolKey {
    /// Whether a tunnel that was dialled for one key serves the other.
    pub(super) fn matches(&self, other: &Self) -> bool {
        self.address == other.address
            && self.credentials.generation() == other.credentials.generation()
            && self.expected == other.expected
    }
}

/// A tunnel in the pool.
#[derive(Clone)]
pub(super) struct PooledTunnel {
    pub(super) handle: TunnelHandle,
    pub(super) facts: TunnelFacts,
    pub(super) path: PathSummary,
}

/// Why there is no tunnel: the same for all that waited for it.
#[derive(Clone)]
pub(crate) struct NotDialled {
    pub(crate) ending: Ending,
    /// How far it came, as the access log says: `-` or `tls`.
    pub(crate) transport: &'static str,
    /// As far as can be seen nothing takes tunnels there: the port cannot be reached, or another protocol is spoken on it. Never that
    /// somebody else than an expected peer answered.
    pub(crate) is_absent: bool,
}

impl NotDialled {
    pub(super) const fn new(ending: Ending, transport: &'static str) -> Self {
        Self { ending, transport, is_absent: false }
    }

    fn absent(mut self) -> Self {
        self.is_absent = true;
        self
    }
}

/// Makes a tunnel, and begins the task that moves its bytes.
pub(super) async fn dial_tunnel(state: &ProxyState, key: &PoolKey) -> Result<PooledTunnel, NotDialled> {
    let address = key.address;
    if state.is_own_outbound(address) {
        return Err(NotDialled::new(Ending::new(Reason::Loop, Some(address.to_string())), "-"));
    }
    let changes = state.changes.subscribe();
    let stream = dial(address, state.settings.timeouts.connect)
        .await
        .map_err(|error| NotDialled::new(outcome::unreachable(DialTarget::Peer, address, &error), "-").absent())?;
    let began = Instant::now();
    let deadline = began + state.settings.timeouts.handshake;
    let too_late = || NotDialled::new(Ending::new(Reason::HandshakeTimeout, None), "tls");
    let own = stream.local_addr();
    let handshake = connect_hbone(stream, &key.credentials, &key.expected);
    let (stream, peer) = match timeout_at(deadline, handshake).await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => {
            let failed = NotDialled::new(outcome::handshake(&error, Direction::Outbound), "tls");
            return Err(if speaks_another_protocol(error.fault()) { failed.absent() } else { failed });
        }
        Err(_elapsed) => return Err(too_late()),
    };
    let tls = note_peer(state, &peer);
    state.metrics.secured(Direction::Outbound, &tls, began.elapsed());
    let (handle, connection) = match timeout_at(deadline, portcullis_hbone::connect(stream)).await {
        Ok(Ok(tunnel)) => tunnel,
        Ok(Err(error)) => return Err(NotDialled::new(failed(error.to_string()), "tls").absent()),
        Err(_elapsed) => return Err(too_late()),
    };
    let facts = TunnelFacts {
        direction: Direction::Outbound,
        src_addr: own.unwrap_or(address),
        dst_addr: Some(address),
        peer: peer.id,
        tls,
    };
    let task = TunnelTask {
        handle: handle.clone(),
        generation: key.credentials.generation(),
        metrics: state.metrics.clone(),
        credentials: state.credentials.clone(),
        changes,
        _open: state.metrics.tunnels.opened(Direction::Outbound),
    };
    drop(tokio::spawn(task.run(connection)));
    Ok(PooledTunnel { handle, facts, path: peer.path })
}

/// Whether a failed handshake says nothing of who answered.
const fn speaks_another_protocol(fault: HandshakeFault) -> bool {
    matches!(
        fault,
        HandshakeFault::Protocol
            | HandshakeFault::PeerAlert
            | HandshakeFault::PeerClosed
            | HandshakeFault::Reset
            | HandshakeFault::Io
    )
}

pub(super) fn failed(error: String) -> Ending {
    Ending::new(Reason::HboneFailed, Some(error))
}

/// The task that drives one tunnel.
struct TunnelTask {
    handle: TunnelHandle,
    generation: u64,
    metrics: Metrics,
    credentials: CredentialReader,
    changes: ChangeWatch,
    _open: Option<OpenTunnel>,
}

impl TunnelTask {
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
