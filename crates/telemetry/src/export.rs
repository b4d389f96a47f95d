//! A line of the access log as data, for a sink that sends it elsewhere than to standard output.
//!
//! The sink is called at the end of a connection, on its thread: what it gets is cheap to make, and it must not wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_identity::SpiffeId;

use crate::claims::PeerClaims;
use crate::connection::Direction;
use crate::outcome::Decision;

/// Takes each line of the access log, whatever its form on standard output.
pub trait AccessSink: Send + Sync {
    /// Takes a line. Must not wait: what there is no room for is dropped and counted.
    fn accept(&self, event: AccessEvent);

    /// What became of the lines so far.
    fn totals(&self) -> SinkTotals;
}

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SinkTotals {
    /// The receiver has them.
    pub sent: u64,
    /// The receiver refused them.
    pub refused: u64,
    /// There was no room for them, or the receiver did not take them in time.
    pub dropped: u64,
}

/// One connection that has ended.
#[derive(Clone, Debug)]
pub struct AccessEvent {
    /// When it ended.
    pub time: SystemTime,
    /// The line is a warning.
    pub warning: bool,
    /// The text of the line, such as `connection refused`.
    pub message: &'static str,
    /// Its number in this process.
    pub id: u64,
    /// Which side of the edge.
    pub direction: Direction,
    /// The client.
    pub source: SocketAddr,
    /// The load balancer that relayed it.
    pub relayed_by: Option<SocketAddr>,
    /// The address that the client dialled, as far as it is known.
    pub destination: Option<SocketAddr>,
    /// Where the HBONE tunnel ends that it is a stream of.
    pub tunnel: Option<SocketAddr>,
    /// What the peer says of a stream.
    pub claims: PeerClaims,
    /// The other side, if it is verified.
    pub peer: Option<SpiffeId>,
    /// The workload's port.
    pub port: Option<u16>,
    /// Mode of the port, or how the route is reached.
    pub mode: &'static str,
    /// The policy that decided, or `-`.
    pub policy: Arc<str>,
    /// Its rule.
    pub rule: Option<u16>,
    /// `mtls`, `tls`, `plaintext` or `-`.
    pub transport: &'static str,
    /// `allow` or `deny`.
    pub decision: Decision,
    /// Why it ended; `-` for a clean end.
    pub reason: &'static str,
    /// What to do about it; may be empty.
    pub hint: &'static str,
    /// The handshake.
    pub tls: TlsOutcome,
    /// The server name in the ClientHello.
    pub server_name: Option<String>,
    /// Client to server.
    pub received: u64,
    /// Server to client.
    pub sent: u64,
    /// From accept to the end.
    pub duration: Duration,
    /// Details of a failure.
    pub error: Option<String>,
}

/// How far TLS came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TlsOutcome {
    /// There was none that this proxy took part in.
    None,
    /// The handshake failed.
    Failed,
    /// It was completed, and agreed on this.
    Established {
        /// `TLSv1.3`.
        version: &'static str,
        /// Key-exchange group.
        group: &'static str,
        /// Cipher suite.
        cipher: &'static str,
        /// The root of the peer's chain, by the SHA-256 of its certificate in hexadecimal.
        root: Arc<String>,
    },
}
