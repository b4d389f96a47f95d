//! What the page shows, in the words in which it shows it. Made from the answers of sidecars; the page only arranges it.

use portcullis_api::{Mode, Timestamp};

/// How far back the graph and the first lines look, in seconds: long enough for a job that runs now and then, short enough that a
/// mended client disappears while one waits.
pub(crate) const TRAFFIC_SECONDS: u64 = 3600;

/// Everything on one page.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// What is shown: the name of the workload, or of the mesh (its trust domain).
    pub title: String,
    /// When it was made.
    pub now: Timestamp,
    /// Sidecars that were asked, and how many of them answered.
    pub asked: usize,
    /// See `asked`.
    pub answered: usize,
    /// Those that did not answer: who, and why.
    pub unreachable: Vec<(String, String)>,
    /// Workloads and other peers.
    pub nodes: Vec<Node>,
    /// Who talks to whom. The numbers are indices of `nodes`.
    pub edges: Vec<Edge>,
    /// Peers that sent plaintext, or TLS of their own, to a workload of the mesh.
    pub plaintext: Vec<PlaintextClient>,
    /// Ports that break-glass opens, each a line: `cart.shop:8080 for another 14m (import fails, ops)`.
    pub break_glass: Vec<String>,
    /// Refused connections, the newest first.
    pub refused: Vec<Refused>,
    /// Ports of workloads.
    pub ports: Vec<Port>,
    /// Certificates of the sidecars.
    pub certificates: Vec<Certificate>,
    /// What changed, the newest first.
    pub changes: Vec<Change>,
}

/// A workload, or another peer.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its namespace, if it has one.
    pub namespace: String,
    /// It has a sidecar, or proved an identity of the mesh.
    pub is_meshed: bool,
    /// The strictest statement about its ports: STRICT if all are, DISABLE if all are, otherwise PERMISSIVE. None without a sidecar
    /// that answered.
    pub mode: Option<Mode>,
}

/// How traffic between two peers is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lock {
    /// All of it is mutual TLS.
    Closed,
    /// Some of it is.
    Half,
    /// None of it is.
    Open,
}

/// Connections from one peer to a port of another.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The client.
    pub from: usize,
    /// The server.
    pub to: usize,
    /// The port of the server.
    pub port: u16,
    /// Connections over mutual TLS that were let through.
    pub mtls: u64,
    /// Connections without it that were let through.
    pub plaintext: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// The last one.
    pub last_seen: Timestamp,
    /// The port is a documented exception from mTLS.
    pub is_exception: bool,
}

impl Edge {
    /// `None` if nothing was let through.
    #[must_use]
    pub const fn lock(&self) -> Option<Lock> {
        match (self.mtls, self.plaintext) {
            (0, 0) => None,
            (_, 0) => Some(Lock::Closed),
            (0, _) => Some(Lock::Open),
            (_, _) => Some(Lock::Half),
        }
    }

    /// The part of mutual TLS, in percent, rounded down so that only all of it is 100.
    #[must_use]
    pub fn mtls_percent(&self) -> Option<u64> {
        let all = self.mtls.saturating_add(self.plaintext);
        u64::try_from(u128::from(self.mtls) * 100 / u128::from(all.max(1))).ok().filter(|_| all > 0)
    }
}

/// A client without mutual TLS that was let through.
#[derive(Clone, Debug)]
pub struct PlaintextClient {
    /// Its name, or its address.
    pub name: String,
    /// A workload of this name proved an identity after the last of these connections.
    pub has_sidecar_now: bool,
    /// Its address, if the name is not that.
    pub address: Option<String>,
    /// The workload and port that it called, `payment:8080`.
    pub to: String,
    /// `plaintext`, or `tls` for TLS that is not the mesh's.
    pub transport: &'static str,
    /// Connections.
    pub connections: u64,
    /// The last one.
    pub last_seen: Timestamp,
    /// What to do.
    pub fix: String,
    /// The port is a documented exception: STRICT for others does not refuse this client.
    pub is_exception: bool,
}

/// Refused connections with the same parties and reason.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The last one.
    pub at: Timestamp,
    /// The client: name, identity or address.
    pub from: String,
    /// The server, `payment:8080`.
    pub to: String,
    /// Why: the reason in logs.
    pub reason: String,
    /// The policy that decided; empty if the connection failed for another reason.
    pub policy: String,
    /// What to do.
    pub hint: String,
    /// How many of them.
    pub count: u64,
}

/// A port of a workload.
#[derive(Clone, Debug)]
pub struct Port {
    /// The workload, `payment.shop`.
    pub workload: String,
    /// The port; `None`: every other one.
    pub port: Option<u16>,
    /// What it accepts.
    pub mode: Mode,
    /// The policy that decides.
    pub decided_by: String,
    /// Its file and line.
    pub location: String,
    /// The part of mutual TLS in percent; `None` if nothing was seen.
    pub mtls_percent: Option<u64>,
    /// Whether STRICT would refuse what is let through today.
    pub verdict: PortStatus,
    /// For how long it was observed, in seconds; at most the window of readiness.
    pub observed_seconds: u64,
    /// Of an exception: whose it is, and until when.
    pub exception: Option<String>,
}

/// Whether a port may become STRICT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PortStatus {
    /// It is.
    Strict,
    /// It stays as it is, for a documented reason and a time.
    Exception,
    /// Nobody would lose anything.
    Ready,
    /// Somebody would.
    NotReady,
    /// Nothing was seen.
    NoData,
}

impl PortStatus {
    /// As the table says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Ready => "READY",
            Self::NotReady => "NOT READY",
            Self::NoData => "NO DATA",
            Self::Exception => "EXCEPTION",
        }
    }
}

/// The certificate of a sidecar.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The workload, `payment.shop`.
    pub workload: String,
    /// The SPIFFE ID.
    pub identity: String,
    /// When it began to be valid.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

/// Something that changed.
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Where: the workload, `payment.shop`.
    pub workload: String,
    /// What, in words.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(mtls: u64, plaintext: u64) -> Edge {
        Edge {
            from: 0,
            to: 0,
            port: 1,
            mtls,
            plaintext,
            refused: 0,
            last_seen: Timestamp::default(),
            is_exception: false,
        }
    }

    #[test]
    fn one_plaintext_connection_in_a_million_opens_the_lock_by_half() {
        assert_eq!((edge(1_000_000, 1).lock(), edge(1_000_000, 1).mtls_percent()), (Some(Lock::Half), Some(99)));
        assert_eq!((edge(u64::MAX, 0).lock(), edge(u64::MAX, 0).mtls_percent()), (Some(Lock::Closed), Some(100)));
        assert_eq!((edge(0, 7).lock(), edge(0, 7).mtls_percent()), (Some(Lock::Open), Some(0)));
        assert_eq!((edge(0, 0).lock(), edge(0, 0).mtls_percent()), (None, None));
    }
}
