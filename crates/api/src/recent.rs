//! `/recent`: the connections that ended last, with what the access log says about them.

use serde::{Deserialize, Serialize};

use crate::{Direction, ProxyInfo, Timestamp, Transport};

/// Connections that ended, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Recent {
    /// Whose they are.
    pub proxy: ProxyInfo,
    /// Ask with `after=` this number for what ends later.
    pub newest: u64,
    /// How many ended after the requested number and are not kept any more.
    pub missed: u64,
    /// The connections.
    pub connections: Vec<EndedConnection>,
}

/// One connection that ended. Fields are those of the access log.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndedConnection {
    /// Its number in the order in which connections of this sidecar ended, from 1.
    pub sequence: u64,
    /// Its number in logs (`conn_id`).
    pub conn_id: u64,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it was open, in milliseconds.
    pub duration_ms: u64,
    /// Which side the sidecar is on.
    pub direction: Direction,
    /// Address of the client.
    pub source: String,
    /// The address that the client dialled.
    #[serde(default)]
    pub destination: Option<String>,
    /// The verified SPIFFE ID of the other side.
    #[serde(default)]
    pub peer: Option<String>,
    /// Outbound: the service that was dialled.
    #[serde(default)]
    pub service: Option<String>,
    /// The port of the workload; outbound the port that was dialled.
    #[serde(default)]
    pub port: Option<u16>,
    /// Mode of the port, or how the route is reached; `-` if it ended before that was known.
    pub mode: String,
    /// By what the bytes were carried.
    #[serde(default)]
    pub transport: Transport,
    /// `allow` or `deny`.
    pub decision: String,
    /// Why it ended: a label of the outcome table (docs/reference/reasons.md); `-` for a clean end.
    pub reason: String,
    /// What an operator can do about it.
    #[serde(default)]
    pub hint: String,
    /// Details of a failure.
    #[serde(default)]
    pub error: Option<String>,
    /// The policy that decided, `namespace/name`, or `-`.
    pub policy: String,
    /// The rule of an AuthorizationPolicy, from 0.
    #[serde(default)]
    pub rule: Option<u16>,
    /// What was negotiated.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// The server name in the ClientHello.
    #[serde(default)]
    pub server_name: Option<String>,
    /// Bytes from client to server.
    #[serde(default)]
    pub bytes_received: u64,
    /// Bytes from server to client.
    #[serde(default)]
    pub bytes_sent: u64,
}

/// What a handshake negotiated.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tls {
    /// `TLSv1.3`.
    pub version: String,
    /// The key exchange group.
    pub group: String,
    /// The cipher suite.
    pub cipher: String,
}
