//! From answers to the report.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Direction, Observation, Observations};

use crate::address_book::AddressBook;
use crate::input::{Answer, Names, WorkloadName, split};
use crate::merge::{self, Peer, PeerKey, WorkloadKey};
use crate::replay::decision::{Found, Recorded, Sidecar};
use crate::replay::model::{Change, Decider, Drift, Options, Replay, Row, TooShort};
use crate::status::Status;
use crate::text::clean_long;
use crate::window::Connections;

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
        let mut drift: BTreeSet<Drift> = BTreeSet::new();
        let mut connections = 0_u64;
        for answer in &asked {
            let sidecar = Sidecar::new(answer, options);
            let (namespace, name) = merge::workload_key(&answer.proxy);
            drift.extend(sidecar.drift(&answer.ports, &WorkloadName { namespace, name }));
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
            drift: drift.into_iter().collect(),
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
        peer: book.shown(&peer, observation.last_seen),
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
