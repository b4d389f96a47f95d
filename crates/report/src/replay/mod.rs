//! What other policies would have done with the connections that were observed.
//!
//! Each observation becomes the facts of a connection, and is decided under the policies in force and under the new ones, as the sidecar
//! would. An observation sums up the connections of one peer, so some facts are known of the last connection only; where an answer depends
//! on those, the row says that it is not decided, and why.

mod decision;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_api::{Direction, Observation, Observations, Timestamp, Transport};
use portcullis_policy::{Evaluation, MeshSettings, PolicySet};
use serde::Serialize;

pub use decision::Decider;

use crate::address_book::AddressBook;
use crate::input::{Answer, Names, Unanswered, split};
use crate::merge::{self, Peer, PeerKey, WorkloadKey};
use crate::readiness::{WorkloadName, called};
use crate::replay::decision::{Recorded, Sidecar};
use crate::status::Status;
use crate::text::clean_long;
use crate::window::{Connections, Window};

/// What to replay, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options<'p> {
    /// The policies in force. Without them, what was let through counts as allowed.
    pub in_force: Option<&'p PolicySet>,
    /// The policies that may take their place, as a whole.
    pub new: &'p PolicySet,
    /// Settings of the mesh for sidecars that do not tell theirs.
    pub mesh: &'p MeshSettings,
    /// Which policies count.
    pub evaluation: Evaluation,
    /// The time before now that counts.
    pub window: Window,
    /// Workloads that were observed for less are named, and nothing is called safe.
    pub min_observation: u64,
    /// Only workloads of this namespace.
    pub namespace: Option<&'p str>,
    /// The reader's clock.
    pub now: Timestamp,
}

/// What other policies would have done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Length of the window.
    pub window_seconds: u64,
    /// The moment up to which was observed.
    pub as_of: Timestamp,
    /// What it comes to.
    pub status: Status,
    /// Whether the policies in force were compared, or only what was let through.
    pub knows_policies_in_force: bool,
    /// How many connections were decided.
    pub connections: u64,
    /// Whose answer changes, or is not known: who loses first.
    pub items: Vec<Row>,
    /// Workloads that were observed for too short a time.
    pub too_short: Vec<TooShort>,
    /// Sidecars that did not answer.
    pub unanswered: Vec<Unanswered>,
    /// Observations that were given up, so that connections are missing.
    pub evicted: u64,
}

/// A workload that was observed for too short a time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TooShort {
    /// The workload.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// For how long, within the window.
    pub observed_seconds: u64,
}

/// One client at one port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What happens to it.
    pub change: Change,
    /// The workload that it calls.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// The port.
    pub port: u16,
    /// How it is called.
    pub peer: String,
    /// The identity that it proved.
    pub identity: Option<String>,
    /// The address that it was seen with last, or that it is known by.
    pub address: Option<IpAddr>,
    /// How it speaks.
    pub transport: Transport,
    /// Its connections in the window.
    pub connections: u64,
    /// The last of them.
    pub last_seen: Timestamp,
    /// Why, as a stable word.
    pub reason: &'static str,
    /// The policies and rules that decide: of the new set for who loses, of the one in force for who gains.
    pub decided_by: Vec<Decider>,
    /// What is not known.
    pub note: Option<String>,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Change {
    /// It was let through, and would be refused.
    #[serde(rename = "LOSES")]
    Loses,
    /// It depends on what was not recorded.
    #[serde(rename = "NOT DECIDED")]
    NotDecided,
    /// It was refused, and would be let through.
    #[serde(rename = "GAINS")]
    Gains,
}

impl Change {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loses => "LOSES",
            Self::NotDecided => "NOT DECIDED",
            Self::Gains => "GAINS",
        }
    }
}

type RowKey = (Change, WorkloadKey, u16, PeerKey, &'static str, Vec<Decider>, Option<String>);

impl Replay {
    /// Decides about every observation.
    #[must_use]
    pub fn new(answers: &[Answer], names: &Names, options: &Options<'_>) -> Self {
        let (answered, unanswered) = split(answers);
        let book = AddressBook::new(&answered, names);
        let is_asked = |answer: &&&Observations| options.namespace.is_none_or(|asked| asked == answer.proxy.namespace);
        let asked: Vec<&Observations> = answered.iter().filter(is_asked).copied().collect();
        let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
        let mut connections = 0_u64;
        for answer in &asked {
            let sidecar = Sidecar::new(answer, options);
            let span = options.window.of(answer, options.now);
            for observation in answer.observations.iter().filter(|it| it.direction == Direction::Inbound) {
                let counted = span.connections(observation);
                if counted == Connections::default() {
                    continue;
                }
                connections = connections.saturating_add(counted.allowed).saturating_add(counted.refused);
                if let Some(found) = sidecar.compare(&Recorded { observation, counted }) {
                    add(&mut rows, answer, observation, &book, found);
                }
            }
        }
        let mut items: Vec<Row> = rows.into_values().collect();
        items.sort_by(|one, other| {
            let order = |row: &Row| (row.change, std::cmp::Reverse(row.connections));
            order(one).cmp(&order(other))
        });
        let mut report = Self {
            window_seconds: options.window.seconds,
            as_of: merge::as_of(&answered, options.window, options.now),
            status: Status::Ready,
            knows_policies_in_force: options.in_force.is_some(),
            connections,
            items,
            too_short: too_short(&asked, options),
            unanswered,
            evicted: asked.iter().map(|answer| answer.evicted).fold(0, u64::saturating_add),
        };
        report.status = report.worst();
        report
    }

    fn worst(&self) -> Status {
        let of = |row: &Row| match row.change {
            Change::Loses => Status::NotReady,
            Change::NotDecided => Status::TooLittle,
            Change::Gains => Status::Ready,
        };
        let silent = self.unanswered.first().map(|_| Status::Unreachable);
        let little = (self.connections == 0 || !self.too_short.is_empty()).then_some(Status::TooLittle);
        self.items.iter().map(of).chain(silent).chain(little).max().unwrap_or(Status::Ready)
    }

    /// The report in a format.
    ///
    /// # Errors
    /// If JSON or YAML cannot be made of it.
    pub fn render(&self, form: crate::Form) -> Result<String, crate::RenderError> {
        crate::render::render(self, form)
    }
}

/// What was found out about one observation.
struct Found {
    change: Change,
    connections: u64,
    reason: &'static str,
    decided_by: Vec<Decider>,
    note: Option<String>,
}

fn add(
    rows: &mut BTreeMap<RowKey, Row>,
    answer: &Observations,
    observation: &Observation,
    book: &AddressBook<'_>,
    found: Found,
) {
    let peer = Peer::of(observation);
    let workload = merge::workload_key(&answer.proxy);
    let Found { change, connections, reason, decided_by, note } = found;
    let row = Row {
        change,
        workload: WorkloadName { namespace: workload.0.clone(), name: workload.1.clone() },
        port: observation.port,
        peer: called(&peer, book),
        identity: observation.peer.identity.as_deref().map(clean_long),
        address: observation.peer.address,
        transport: observation.transport,
        connections,
        last_seen: observation.last_seen,
        reason,
        decided_by: decided_by.clone(),
        note: note.clone(),
    };
    let peer = PeerKey { transport: observation.transport, peer };
    let key = (change, workload, observation.port, peer, reason, decided_by, note);
    match rows.get_mut(&key) {
        Some(known) => {
            known.connections = known.connections.saturating_add(row.connections);
            if (row.last_seen, row.address) > (known.last_seen, known.address) {
                (known.last_seen, known.address) = (row.last_seen, row.address);
            }
        }
        None => drop(rows.insert(key, row)),
    }
}

fn too_short(asked: &[&Observations], options: &Options<'_>) -> Vec<TooShort> {
    let workloads = merge::workloads(asked, options.window, options.now);
    let short = workloads.into_iter().filter_map(|((namespace, name), workload)| {
        let observed_seconds = workload.observed();
        let workload = WorkloadName { namespace, name };
        (observed_seconds < options.min_observation).then_some(TooShort { workload, observed_seconds })
    });
    short.collect::<BTreeSet<_>>().into_iter().collect()
}
