//! `/observations`: who was seen talking to the workload, and to whom it talked, since when and how often.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Direction, PortMode, ProxyInfo, Timestamp, Transport};

/// The ledger of one sidecar.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Observations {
    /// Whose they are.
    pub proxy: ProxyInfo,
    /// Since when connections are observed. A sidecar that keeps its ledger on disk observes across restarts.
    pub since: Timestamp,
    /// For how many seconds since then a sidecar ran, and so would have seen a connection.
    pub observed_seconds: u64,
    /// The ledger is on disk, so it survives a restart.
    pub is_persistent: bool,
    /// How many observations were given up to stay below the limit. Not 0: the list is not complete.
    pub evicted: u64,
    /// The mode of each port that the configuration, a policy or a connection names, then that of every other port.
    pub ports: Vec<PortMode>,
    /// What was seen.
    pub observations: Vec<Observation>,
}

/// What was seen of one peer at one port by one transport.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// Inbound: the peer is a client of the workload. Outbound: the peer is a server.
    pub direction: Direction,
    /// Inbound: the port of the workload. Outbound: the port that was dialled.
    pub port: u16,
    /// By what the bytes were carried.
    pub transport: Transport,
    /// The peer.
    pub peer: Client,
    /// Connections that were let through.
    #[serde(default)]
    pub allowed: u64,
    /// Connections that were refused, or cut after a change.
    #[serde(default)]
    pub refused: u64,
    /// Bytes from client to server.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes from server to client.
    #[serde(default)]
    pub bytes_sent: u64,
    /// The first connection.
    pub first_seen: Timestamp,
    /// The last connection: when it was accepted, or when bytes of an open one were last seen moving.
    pub last_seen: Timestamp,
    /// Why the last one was refused that was.
    #[serde(default)]
    pub last_refusal: Option<RefusedFor>,
    /// Connections by day, the oldest first; days before the last eight are in the totals only.
    #[serde(default)]
    pub days: Vec<DayCount>,
}

/// The other side of a connection.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Client {
    /// The verified SPIFFE ID; none without mutual TLS.
    pub identity: Option<String>,
    /// The address that was seen last. For a peer without an identity it is what tells it from others.
    pub address: Option<IpAddr>,
    /// What the address is called: a service or workload of the directory, otherwise the name of reverse DNS.
    pub name: Option<String>,
    /// Outbound: the service that was dialled, as far as it is known.
    pub service: Option<String>,
    /// Inbound: the address of the workload that was dialled last, which `ipBlocks` and ports of policies are compared with.
    pub dialled: Option<IpAddr>,
    /// The server name of the last ClientHello.
    pub server_name: Option<String>,
}

/// A refusal.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RefusedFor {
    /// The reason, a label of the outcome table (docs/reference/reasons.md).
    pub reason: String,
    /// The policy that decided, `namespace/name`, or `-`.
    pub policy: String,
    /// When.
    pub at: Timestamp,
}

/// The connections of one day.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DayCount {
    /// Days since 1970-01-01, in UTC.
    pub day: i64,
    /// Connections that were let through.
    pub allowed: u64,
    /// Connections that were refused.
    pub refused: u64,
}
