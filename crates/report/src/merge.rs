//! From the answers of all sidecars to the traffic of each workload.
//!
//! Everything here is a minimum, a maximum or a sum, so that neither the order of the answers nor the sidecar that saw a connection matters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_api::{
    Direction, Mode, Observation, Observations, PortMode, ProxyInfo, RefusedFor, Timestamp, Transport,
};

use crate::text::{clean, clean_long};
use crate::window::{Connections, Span, Window};

const SECONDS_A_DAY: u64 = 86_400;

/// A workload: namespace and name.
pub(crate) type WorkloadKey = (String, String);

/// One workload, over all its sidecars.
#[derive(Clone, Debug, Default)]
pub(crate) struct Workload {
    pub(crate) sidecars: Vec<Sidecar>,
    /// What clients did, by port.
    pub(crate) ports: BTreeMap<u16, Vec<(PeerKey, PeerTraffic)>>,
    /// Its labels; replicas have the same ones.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) identity: String,
}

/// What one sidecar says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Sidecar {
    /// For how long it observed, up to the length of the window.
    pub(crate) observed: u64,
    pub(crate) is_persistent: bool,
    pub(crate) evicted: u64,
    ports: Vec<PortMode>,
}

/// Who a peer is, as far as that is proven, and how it speaks.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct PeerKey {
    pub(crate) transport: Transport,
    pub(crate) peer: Peer,
}

/// Who a peer is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Peer {
    Identity(String),
    Address(IpAddr),
    Unknown,
}

/// What was seen of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerTraffic {
    pub(crate) window: Connections,
    /// Ever, let through or not.
    pub(crate) total: u64,
    pub(crate) total_allowed: u64,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) refusal: Option<RefusedFor>,
    /// Days with a connection, as far back as the ledger keeps days apart.
    days: BTreeSet<i64>,
    /// The day before those.
    before: i64,
    pub(crate) dialled: Option<IpAddr>,
}

impl Peer {
    pub(crate) fn of(observation: &Observation) -> Self {
        match (&observation.peer.identity, observation.peer.address) {
            (Some(identity), _) => Self::Identity(clean_long(identity)),
            (None, Some(address)) => Self::Address(address.to_canonical()),
            (None, None) => Self::Unknown,
        }
    }

    /// Its address, if that is what tells it from others.
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Identity(_) | Self::Unknown => None,
        }
    }
}

impl PeerTraffic {
    pub(crate) fn new(observation: &Observation, span: Span) -> Self {
        let refusal = observation.last_refusal.as_ref().map(|last| RefusedFor {
            reason: clean(&last.reason),
            policy: clean_long(&last.policy),
            at: last.at,
        });
        Self {
            window: span.connections(observation),
            total: observation.allowed.saturating_add(observation.refused),
            total_allowed: observation.allowed,
            received: observation.bytes_received,
            sent: observation.bytes_sent,
            first: observation.first_seen,
            last: observation.last_seen,
            refusal,
            days: observation.days.iter().map(|count| count.day).collect(),
            before: span.day_before_kept(),
            dialled: observation.peer.dialled,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        let order = |last: &Option<RefusedFor>| last.as_ref().map(|it| (it.at, it.reason.clone(), it.policy.clone()));
        let dialled = |seen: &Self| (seen.last, seen.dialled);
        if dialled(&other) > dialled(self) {
            self.dialled = other.dialled;
        }
        self.window.allowed = self.window.allowed.saturating_add(other.window.allowed);
        self.window.refused = self.window.refused.saturating_add(other.window.refused);
        self.total = self.total.saturating_add(other.total);
        self.total_allowed = self.total_allowed.saturating_add(other.total_allowed);
        self.received = self.received.saturating_add(other.received);
        self.sent = self.sent.saturating_add(other.sent);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.days.extend(other.days);
        self.before = self.before.max(other.before);
        if order(&other.refusal) > order(&self.refusal) {
            self.refusal = other.refusal;
        }
    }

    /// The mean time between two connections, if there were two.
    pub(crate) fn interval(&self) -> Option<u64> {
        let gaps = self.total.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last.seconds_since(self.first) / gaps)
    }

    /// The longest time between two connections that is known of: the mean, or whole days without one. A batch that runs once a week has a
    /// short mean.
    pub(crate) fn longest_gap(&self) -> Option<u64> {
        let before = (self.first.day() < self.before).then_some(self.before);
        let days = before.into_iter().chain(self.days.iter().copied());
        let without = |(day, next): (i64, i64)| u64::try_from(next.saturating_sub(day).saturating_sub(1)).unwrap_or(0);
        let longest = days.clone().zip(days.skip(1)).map(without).max().unwrap_or(0).saturating_mul(SECONDS_A_DAY);
        self.interval().max((longest > 0).then_some(longest))
    }
}

impl Workload {
    /// For how long it was observed within the window: the shortest of its sidecars.
    pub(crate) fn observed(&self) -> u64 {
        self.sidecars.iter().map(|sidecar| sidecar.observed).min().unwrap_or(0)
    }

    /// The modes that a port has at its sidecars, and what decides them; one, unless they have different policies.
    pub(crate) fn modes(&self, port: u16) -> Vec<PortMode> {
        let of = |sidecar: &Sidecar| {
            let named = sidecar.ports.iter().find(|mode| mode.port == Some(port));
            let found = named.or_else(|| sidecar.ports.iter().find(|mode| mode.port.is_none()));
            PortMode { port: Some(port), ..found.cloned().unwrap_or_default() }
        };
        let mut modes: Vec<PortMode> = self.sidecars.iter().map(of).collect();
        let order = |mode: &PortMode| {
            let by = &mode.decided_by;
            let documented = (by.owner.clone(), by.reason.clone(), by.expires.clone());
            let written = (by.namespace.clone(), by.name.clone(), by.file.clone(), by.line);
            (strictness(mode.mode), written, documented, mode.server_first)
        };
        modes.sort_by_key(order);
        modes.dedup_by_key(|mode| order(mode));
        modes
    }
}

/// The mode that admits most comes first.
const fn strictness(mode: Mode) -> u8 {
    match mode {
        Mode::Disable => 0,
        Mode::Unknown => 1,
        Mode::Permissive => 2,
        Mode::Strict => 3,
    }
}

/// The traffic of each workload.
pub(crate) fn workloads(answers: &[&Observations], window: Window, now: Timestamp) -> BTreeMap<WorkloadKey, Workload> {
    let mut merged: BTreeMap<WorkloadKey, Workload> = BTreeMap::new();
    let mut traffic: BTreeMap<(WorkloadKey, u16, PeerKey), PeerTraffic> = BTreeMap::new();
    for answer in answers {
        let key = workload_key(&answer.proxy);
        let span = window.of(answer, now);
        let workload = merged.entry(key.clone()).or_default();
        workload.add(answer, span, window);
        for observation in answer.observations.iter().filter(|it| it.direction == Direction::Inbound) {
            let peer = PeerKey { transport: observation.transport, peer: Peer::of(observation) };
            let seen = PeerTraffic::new(observation, span);
            match traffic.get_mut(&(key.clone(), observation.port, peer.clone())) {
                Some(known) => known.add(seen),
                None => drop(traffic.insert((key.clone(), observation.port, peer), seen)),
            }
        }
    }
    for workload in merged.values_mut() {
        let named: BTreeSet<u16> = workload.sidecars.iter().flat_map(|it| &it.ports).filter_map(|it| it.port).collect();
        workload.ports = named.into_iter().map(|port| (port, Vec::new())).collect();
    }
    for ((key, port, peer), seen) in traffic {
        if let Some(workload) = merged.get_mut(&key) {
            workload.ports.entry(port).or_default().push((peer, seen));
        }
    }
    merged
}

impl Workload {
    fn add(&mut self, answer: &Observations, span: Span, window: Window) {
        let proxy = &answer.proxy;
        let labels: BTreeMap<String, String> =
            proxy.labels.iter().map(|(key, value)| (clean(key), clean(value))).collect();
        let identity = clean_long(&proxy.identity);
        // Replicas agree; where they do not, any choice is as good as another, but it must not depend on their order.
        if self.sidecars.is_empty() || (&identity, &labels) < (&self.identity, &self.labels) {
            (self.identity, self.labels) = (identity, labels);
        }
        let existed = span.end().seconds_since(answer.since);
        self.sidecars.push(Sidecar {
            observed: answer.observed_seconds.min(existed).min(window.seconds),
            is_persistent: answer.is_persistent,
            evicted: answer.evicted,
            ports: answer.ports.iter().map(cleaned).collect(),
        });
    }
}

fn cleaned(mode: &PortMode) -> PortMode {
    let mut mode = mode.clone();
    let by = &mut mode.decided_by;
    for text in [&mut by.namespace, &mut by.name, &mut by.file, &mut by.owner, &mut by.reason, &mut by.expires]
        .into_iter()
        .flatten()
    {
        *text = clean_long(text);
    }
    by.scope = clean(&by.scope);
    mode
}

/// What an answer is filed under.
pub(crate) fn workload_key(proxy: &ProxyInfo) -> WorkloadKey {
    (clean(&proxy.namespace), clean(&proxy.name))
}

/// The moment up to which the answers are.
pub(crate) fn as_of(answers: &[&Observations], window: Window, now: Timestamp) -> Timestamp {
    answers.iter().map(|answer| window.of(answer, now).end()).max().unwrap_or(now)
}
