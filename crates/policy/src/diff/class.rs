//! Classes of workloads, ports and connections, and one connection of a class.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_identity::SpiffeId;
use portcullis_wire::Opening;
use serde::Serialize;

/// How a client speaks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    /// mTLS of the mesh, with a verified identity where the mode asks for one.
    Mtls,
    /// Plaintext.
    Plaintext,
    /// TLS of its own, not the mesh's. Differs from plaintext by its server name only.
    Tls,
}

impl Client {
    /// Every client.
    pub const ALL: [Self; 3] = [Self::Mtls, Self::Plaintext, Self::Tls];

    /// Its first bytes.
    #[must_use]
    pub const fn opening(self) -> Opening {
        match self {
            Self::Mtls => Opening::MeshTls,
            Self::Plaintext => Opening::Plain,
            Self::Tls => Opening::ForeignTls,
        }
    }
}

/// Workloads that both sets treat alike.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadClass {
    /// The namespace.
    pub namespace: String,
    /// It stands for every namespace that no policy names.
    pub any_other_namespace: bool,
    /// Labels. Others do not matter, unless a selector names them.
    pub labels: BTreeMap<String, String>,
}

/// Ports that both sets treat alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortClass {
    /// This one.
    One(u16),
    /// Every port but those that policies of the workload name.
    AllBut(BTreeSet<u16>),
}

impl PortClass {
    /// Whether a port belongs to the class.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::One(one) => *one == port,
            Self::AllBut(named) => !named.contains(&port),
        }
    }
}

/// One connection of a class.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Connection {
    /// How the client speaks.
    pub client: Client,
    /// The identity that it proves, with mTLS.
    pub peer: Option<SpiffeId>,
    /// Address of the direct peer.
    pub source: IpAddr,
    /// Address of the client behind a load balancer.
    pub remote: IpAddr,
    /// Address that it dialled.
    pub destination: IpAddr,
    /// Port that the workload listens on.
    pub port: u16,
    /// Server name.
    pub sni: Option<String>,
}
