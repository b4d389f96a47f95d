//! Who breaks if a workload switches to STRICT: per port, from what its sidecars observed.

mod clients;
mod confidence;
mod fix;
mod report;

use std::collections::BTreeMap;

use portcullis_api::{Mode, PortMode, RefusedFor, Timestamp, Transport};
use serde::Serialize;

pub(crate) use clients::called;
pub use clients::{Client, What};
pub use confidence::{Confidence, Level};
pub use fix::{Fix, Paste};

use crate::address_book::AddressBook;
use crate::input::{Answer, Names, NoSidecar, Unanswered, split};
use crate::merge::{self, PeerKey, Seen, Workload};
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

/// A workload.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
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
    pub verdict: Verdict,
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
pub enum Verdict {
    /// The target mode is in force.
    #[serde(rename = "ENFORCED")]
    Enforced,
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

impl Verdict {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforced => "ENFORCED",
            Self::Ready => "READY",
            Self::NoData => "NO DATA",
            Self::NotReady => "NOT READY",
        }
    }
}

impl Readiness {
    /// Makes the report. `directory` are workloads that a service directory names and that have no sidecar there.
    #[must_use]
    pub fn new(answers: &[Answer], names: &Names, directory: &[NoSidecar], options: &Options) -> Self {
        let (answered, unanswered) = split(answers);
        let book = AddressBook::new(&answered, names);
        let is_asked = |namespace: &str| options.namespace.as_deref().is_none_or(|asked| asked == namespace);
        let workloads = merge::workloads(&answered, options.window, options.now);
        let as_of = merge::as_of(&answered, options.window, options.now);
        let context = Context { book: &book, options, as_of, unanswered: unanswered.len() };
        let (mut items, mut without_ports) = (Vec::new(), Vec::new());
        for ((namespace, name), workload) in workloads.iter().filter(|((namespace, _), _)| is_asked(namespace)) {
            let name = WorkloadName { namespace: namespace.clone(), name: name.clone() };
            if workload.ports.is_empty() {
                without_ports.push(name.clone());
            }
            items.extend(workload.ports.iter().map(|(port, seen)| context.port(&name, workload, *port, seen)));
        }
        let has_sidecar = |it: &&NoSidecar| {
            !workloads.contains_key(&(it.namespace.clone(), it.name.clone())) && is_asked(&it.namespace)
        };
        let mut without_sidecar: Vec<NoSidecar> = directory.iter().filter(has_sidecar).cloned().collect();
        without_sidecar.sort();
        without_sidecar.dedup();
        let mut report = Self {
            target: Mode::Strict,
            window_seconds: options.window.seconds,
            min_observation_seconds: options.min_observation,
            as_of,
            status: Status::Ready,
            items,
            unanswered,
            without_ports,
            without_sidecar,
        };
        report.status = report.worst();
        report
    }

    fn worst(&self) -> Status {
        let of = |port: &Port| match port.verdict {
            Verdict::Enforced => Status::Ready,
            Verdict::NotReady => Status::NotReady,
            Verdict::NoData => Status::TooLittle,
            Verdict::Ready if port.observed_seconds < self.min_observation_seconds => Status::TooLittle,
            Verdict::Ready => Status::Ready,
        };
        let silent = self.unanswered.first().map(|_| Status::Unreachable);
        let nothing = (self.items.is_empty() && self.without_ports.is_empty()).then_some(Status::TooLittle);
        self.items.iter().map(of).chain(silent).chain(nothing).max().unwrap_or(Status::Ready)
    }
}

/// What the rows of one report share.
struct Context<'a> {
    book: &'a AddressBook<'a>,
    options: &'a Options,
    as_of: Timestamp,
    unanswered: usize,
}

impl Context<'_> {
    fn port(&self, name: &WorkloadName, workload: &Workload, port: u16, traffic: &[(PeerKey, Seen)]) -> Port {
        let modes = workload.modes(port);
        let allowed = |is_mtls: bool| {
            let of_kind = traffic.iter().filter(|(key, _)| (key.transport == Transport::Mtls) == is_mtls);
            of_kind.map(|(_, seen)| seen.window.allowed).fold(0, u64::saturating_add)
        };
        let (mtls, other) = (allowed(true), allowed(false));
        let verdict = match (mtls, other) {
            _ if !modes.is_empty() && modes.iter().all(|mode| mode.mode == Mode::Strict) => Verdict::Enforced,
            (_, 1..) => Verdict::NotReady,
            (0, 0) => Verdict::NoData,
            (1.., 0) => Verdict::Ready,
        };
        let scene = fix::Scene { name, workload, port, modes: &modes };
        let clients = clients::of(traffic, self.book, &scene);
        let refused = self.refused(traffic);
        Port {
            workload: name.clone(),
            port,
            replicas: workload.sidecars.len(),
            mtls_connections: mtls,
            other_connections: other,
            refused_connections: refused.iter().map(|it| it.connections).fold(0, u64::saturating_add),
            last_seen: clients.iter().map(|client| client.last_seen).max(),
            verdict,
            confidence: self.confidence(workload, traffic, mtls.saturating_add(other)),
            observed_seconds: workload.observed(),
            clients,
            refused,
            notes: report::notes(&modes),
            modes,
        }
    }

    fn refused(&self, traffic: &[(PeerKey, Seen)]) -> Vec<Refused> {
        let mut refused: BTreeMap<(String, Transport), Refused> = BTreeMap::new();
        for (key, seen) in traffic.iter().filter(|(_, seen)| seen.window.refused > 0) {
            let client = called(&key.peer, self.book);
            let entry = refused.entry((client.clone(), key.transport)).or_insert_with(|| Refused {
                client,
                transport: key.transport,
                connections: 0,
                last: None,
            });
            entry.connections = entry.connections.saturating_add(seen.window.refused);
            let at = |last: &Option<RefusedFor>| last.as_ref().map(|it| (it.at, it.reason.clone(), it.policy.clone()));
            if at(&seen.refusal) > at(&entry.last) {
                entry.last.clone_from(&seen.refusal);
            }
        }
        refused.into_values().collect()
    }

    fn confidence(&self, workload: &Workload, traffic: &[(PeerKey, Seen)], connections: u64) -> Confidence {
        let window = self.options.window;
        let evidence = confidence::Evidence { workload, traffic, connections, window, as_of: self.as_of };
        let mut confidence = evidence.weigh(|peer| called(peer, self.book));
        if self.unanswered > 0 {
            let sidecars = crate::text::count(self.unanswered as u64, "sidecar");
            confidence.doubt(Level::Low, format!("{sidecars} did not answer"));
        }
        confidence
    }
}

impl Readiness {
    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: crate::Form) -> Result<String, crate::RenderError> {
        crate::render::render(self, form)
    }
}
