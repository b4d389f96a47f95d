//! From answers to the report.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Mode, PortMode, RefusedFor, Timestamp, Transport};

use crate::address_book::AddressBook;
use crate::input::{Answer, Names, NoSidecar, WorkloadName, split};
use crate::merge::{self, PeerKey, PeerTraffic, Workload};
use crate::readiness::confidence::{self, Confidence, Level};
use crate::readiness::model::{Options, Port, PortReadiness, Readiness, Refused};
use crate::readiness::secured::Secured;
use crate::readiness::{clients, exception, fix};
use crate::status::Status;

impl Readiness {
    /// Makes the report. `directory` are workloads that a service directory names and that have no sidecar there.
    #[must_use]
    pub fn new(answers: &[Answer], names: &Names, directory: &[NoSidecar], options: &Options) -> Self {
        let (answered, unanswered) = split(answers);
        let book = AddressBook::new(&answered, names);
        let is_asked = |namespace: &str| options.namespace.as_deref().is_none_or(|asked| asked == namespace);
        let workloads = merge::workloads(&answered, options.window, options.now);
        let as_of = merge::as_of(&answered, options.window, options.now);
        let secured = Secured::new(&answered);
        let context = Context { book: &book, secured: &secured, options, as_of, unanswered: unanswered.len() };
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

    /// What one port comes to.
    pub(crate) const fn status_of(&self, port: &Port) -> Status {
        match port.verdict {
            PortReadiness::Enforced | PortReadiness::Exception => Status::Ready,
            PortReadiness::NotReady => Status::NotReady,
            PortReadiness::NoData => Status::TooLittle,
            PortReadiness::Ready if port.observed_seconds < self.min_observation_seconds => Status::TooLittle,
            PortReadiness::Ready => Status::Ready,
        }
    }

    fn worst(&self) -> Status {
        let silent = self.unanswered.first().map(|_| Status::Unreachable);
        let nothing = (self.items.is_empty() && self.without_ports.is_empty()).then_some(Status::TooLittle);
        self.items.iter().map(|port| self.status_of(port)).chain(silent).chain(nothing).max().unwrap_or(Status::Ready)
    }
}

/// What the rows of one report share.
struct Context<'a> {
    book: &'a AddressBook<'a>,
    secured: &'a Secured,
    options: &'a Options,
    as_of: Timestamp,
    unanswered: usize,
}

impl Context<'_> {
    fn port(&self, name: &WorkloadName, workload: &Workload, port: u16, traffic: &[(PeerKey, PeerTraffic)]) -> Port {
        let modes = workload.modes(port);
        let allowed = |is_mtls: bool| {
            let of_kind = traffic.iter().filter(|(key, _)| (key.transport == Transport::Mtls) == is_mtls);
            of_kind.map(|(_, seen)| seen.window.allowed).fold(0, u64::saturating_add)
        };
        let (mtls, other) = (allowed(true), allowed(false));
        let exception = exception::Exception::of(&modes, self.options.now);
        let verdict = match (mtls, other) {
            _ if !modes.is_empty() && modes.iter().all(|mode| mode.mode == Mode::Strict) => PortReadiness::Enforced,
            _ if exception.is_some() => PortReadiness::Exception,
            (_, 1..) => PortReadiness::NotReady,
            (0, 0) => PortReadiness::NoData,
            (1.., 0) => PortReadiness::Ready,
        };
        let scene = fix::Scene { name, workload, port, modes: &modes };
        let clients = clients::of(traffic, self.book, self.secured, &scene);
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
            exception,
            confidence: self.confidence(workload, traffic, mtls.saturating_add(other)),
            observed_seconds: workload.observed(),
            clients,
            refused,
            notes: notes(&modes, self.options.now),
            modes,
        }
    }

    fn refused(&self, traffic: &[(PeerKey, PeerTraffic)]) -> Vec<Refused> {
        let mut refused: BTreeMap<(String, Transport), Refused> = BTreeMap::new();
        for (key, seen) in traffic.iter().filter(|(_, seen)| seen.window.refused > 0) {
            let client = self.book.shown(&key.peer, seen.last);
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

    fn confidence(&self, workload: &Workload, traffic: &[(PeerKey, PeerTraffic)], connections: u64) -> Confidence {
        let window = self.options.window;
        let evidence = confidence::Evidence { workload, traffic, connections, window, as_of: self.as_of };
        let mut confidence = evidence.weigh(|peer, at| self.book.shown(peer, at));
        if self.unanswered > 0 {
            let sidecars = crate::text::count(self.unanswered as u64, "sidecar");
            confidence.doubt(Level::Low, format!("{sidecars} did not answer"));
        }
        confidence
    }
}

fn notes(modes: &[PortMode], now: Timestamp) -> Vec<String> {
    let mut notes = Vec::new();
    if modes.iter().any(|mode| mode.server_first && mode.mode != Mode::Strict) {
        notes.push("server-first: STRICT removes the wait for silent clients".to_owned());
    }
    let different: BTreeSet<Mode> = modes.iter().map(|mode| mode.mode).collect();
    if different.len() > 1 {
        notes.push(
            "its sidecars have different modes: one of them has not read the policies yet, or reads others".to_owned(),
        );
    }
    for mode in modes.iter().filter(|mode| mode.mode != Mode::Strict && exception::is_of_workload(mode)) {
        let lacks = exception::lacks(&mode.decided_by, now);
        if !lacks.is_empty() {
            notes.push(format!("no exception, since {} has {}", mode.decided_by.label(), lacks.join(", ")));
        }
    }
    notes
}
