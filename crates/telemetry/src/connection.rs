//! Facts of one connection that several parts of this crate need.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Which side of the mesh edge this proxy is on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// A peer connected to our app.
    Inbound,
    /// Our app connected to a peer.
    Outbound,
}

impl Direction {
    /// `inbound` or `outbound`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// Istio's `reporter` label.
    pub(crate) const fn reporter(self) -> &'static str {
        match self {
            Self::Inbound => "destination",
            Self::Outbound => "source",
        }
    }
}

/// Bytes moved so far, shared with the copy loop. Counted as Istio does for both reporters: `received` from client to
/// server, `sent` from server to client.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    /// Client to server.
    pub received: Arc<AtomicU64>,
    /// Server to client.
    pub sent: Arc<AtomicU64>,
}

/// What the handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// Key-exchange group.
    pub group: &'static str,
    /// Cipher suite.
    pub cipher: &'static str,
    /// The root that the peer's chain ends at: the SHA-256 of its certificate in hexadecimal.
    pub root: Arc<String>,
}

impl From<Direction> for portcullis_api::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
        }
    }
}
