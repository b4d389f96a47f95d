//! What `readiness` says.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portcullis_api::{Mode, PortMode, RefusedFor, Timestamp, Transport};
use serde::Serialize;

use crate::input::{NoSidecar, Unanswered, WorkloadName};
use crate::paste::Fix;
use crate::readiness::confidence::Confidence;
use crate::readiness::exception::Exception;
use crate::status::Status;
use crate::window::Window;

/// What to report about.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time before now that counts.
    pub window: Window,
    /// A workload that was observed for less is not called ready.
    pub min_observation: u64,
    /// Only workloads of this namespace.
    pub namespace: Option<String>,
    /// The reader's clock. Windows end by the clock of each sidecar, if it tells it.
    pub now: Timestamp,
}

/// Who breaks if workloads switch to STRICT.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// The mode that is asked about.
    pub target: Mode,
    /// Length of the window.
    pub window_seconds: u64,
    /// Observed for less, a workload is not called ready.
    pub min_observation_seconds: u64,
    /// The moment up to which was observed.
    pub as_of: Timestamp,
    /// What it comes to.
    pub status: Status,
    /// The ports, by namespace, workload and number.
    pub items: Vec<Port>,
    /// Sidecars that did not answer.
    pub unanswered: Vec<Unanswered>,
    /// Workloads with a sidecar and without a port.
    pub without_ports: Vec<WorkloadName>,
    /// Workloads of the service directory that have no sidecar.
    pub without_sidecar: Vec<NoSidecar>,
}

/// One port of one workload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// The workload.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// The port.
    pub port: u16,
    /// How many sidecars observed it.
    pub replicas: usize,
    /// Its mode, and the policy that decides it. Several if sidecars of the workload differ.
    pub modes: Vec<PortMode>,
    /// Connections over mTLS in the window that were let through.
    pub mtls_connections: u64,
    /// Other connections in the window that were let through.
    pub other_connections: u64,
    /// Connections in the window that were refused.
    pub refused_connections: u64,
    /// When a client without mTLS was last let through.
    pub last_seen: Option<Timestamp>,
    /// The verdict.
    pub verdict: PortReadiness,
    /// The documented exception that keeps it below STRICT; none if its verdict is not `EXCEPTION`.
    pub exception: Option<Exception>,
    /// How sure it is that these are all clients.
    pub confidence: Confidence,
    /// For how long the workload was observed within the window: the shortest of its sidecars.
    pub observed_seconds: u64,
    /// Clients in the window that STRICT would refuse.
    pub clients: Vec<Client>,
    /// Clients that were refused already.
    pub refused: Vec<Refused>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

/// A client whose connections were refused in the window.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// How it is called.
    pub client: String,
    /// How it spoke.
    pub transport: Transport,
    /// How often.
    pub connections: u64,
    /// Why the last time.
    pub last: Option<RefusedFor>,
}

/// Whether a port is ready.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PortReadiness {
    /// The target mode is in force.
    #[serde(rename = "ENFORCED")]
    Enforced,
    /// A policy of the workload keeps it below STRICT, with an owner, a reason and an end that has not come.
    #[serde(rename = "EXCEPTION")]
    Exception,
    /// Every connection in the window that was let through was mTLS.
    #[serde(rename = "READY")]
    Ready,
    /// No connection in the window was let through.
    #[serde(rename = "NO DATA")]
    NoData,
    /// Clients would be refused.
    #[serde(rename = "NOT READY")]
    NotReady,
}

impl PortReadiness {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "ENFORCED",
            Self::Exception => "EXCEPTION",
            Self::Ready => "READY",
            Self::NoData => "NO DATA",
            Self::NotReady => "NOT READY",
        }
    }
}

/// A client that STRICT would refuse.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its name, else its address.
    pub client: String,
    /// The addresses that it was seen with.
    pub addresses: BTreeSet<IpAddr>,
    /// How it speaks; `-` if the port is DISABLE, where nobody looks.
    pub transport: Transport,
    /// What it is, as far as that is known.
    pub what: What,
    /// Who has a sidecar at its address.
    pub sidecar: Option<String>,
    /// Its connections in the window that were let through.
    pub connections: u64,
    /// Its first connection ever.
    pub first_seen: Timestamp,
    /// Its last one.
    pub last_seen: Timestamp,
    /// The mean time between two connections.
    pub interval_seconds: Option<u64>,
    /// What to do, one of these.
    pub fixes: Vec<Fix>,
}

/// What a client is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// No sidecar is known at its address.
    NoSidecar,
    /// There is a sidecar at its address, but it sends plaintext.
    BesideSidecar,
    /// It has a sidecar now: it proved an identity after the last of these connections.
    SidecarNow,
    /// It is a small request in a short, steady rhythm from an address without a name: probably a health check.
    HealthCheck,
    /// The host of the containers: what comes through a published port.
    HostGateway,
    /// A process on the host of the sidecar.
    ThisHost,
    /// TLS that is not the mesh's. STRICT takes it if it presents a certificate of the mesh.
    OwnTls,
    /// The port is DISABLE, so nobody looked at what it speaks.
    NotInspected,
}

impl What {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSidecar => "no sidecar",
            Self::BesideSidecar => "has a sidecar, but sends plaintext",
            Self::SidecarNow => {
                "it has a sidecar now; these connections are older, and count until they leave the window"
            }
            Self::HealthCheck => "looks like a health check",
            Self::HostGateway => "the containers' host, through a published port",
            Self::ThisHost => "a process on the sidecar's host",
            Self::OwnTls => "TLS of its own",
            Self::NotInspected => "not inspected, since the port is DISABLE",
        }
    }
}
