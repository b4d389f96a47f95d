//! The table as others see it, and back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use portcullis_api::{Client, Direction, Observation, RefusedFor, Timestamp};

use crate::entry::{Entry, LastRefusal, is_kept};
use crate::key::{Key, PeerKey};
use crate::ledger::{Ledger, lock};

impl Ledger {
    /// Everything that was seen: inbound first, by port, the most recent first.
    #[must_use]
    pub fn observations(&self) -> Vec<Observation> {
        let today = Timestamp::from_unix(self.0.clock.now_unix()).day();
        let mut all: Vec<Observation> = self.entries().iter().map(|entry| observation(entry, today)).collect();
        all.sort_by(|a, b| {
            let order = |o: &Observation| (o.direction, o.port, std::cmp::Reverse(o.last_seen), o.transport);
            order(a)
                .cmp(&order(b))
                .then_with(|| (&a.peer.identity, a.peer.address).cmp(&(&b.peer.identity, b.peer.address)))
        });
        all
    }

    /// Since when connections are observed.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_unix(lock(&self.0.history).since)
    }

    /// For how many seconds since then a sidecar ran.
    #[must_use]
    pub fn observed_seconds(&self) -> u64 {
        let history = *lock(&self.0.history);
        let total = history.observed_before.saturating_add(self.0.clock.running().as_secs());
        // Two processes may have run at once.
        let passed = self.0.clock.now_unix().saturating_sub(history.since);
        total.min(u64::try_from(passed).unwrap_or(0).max(self.0.clock.running().as_secs()))
    }

    /// What is seen outlives this process.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.0.is_persistent.load(Ordering::Relaxed)
    }

    /// The ports of the workload at which a connection was let through.
    #[must_use]
    pub fn inbound_ports(&self) -> BTreeSet<u16> {
        let is_open = |entry: &Arc<Entry>| entry.key.direction == Direction::Inbound && entry.facts().allowed > 0;
        self.entries().into_iter().filter(is_open).map(|entry| entry.key.port).collect()
    }
}

pub(crate) fn observation(entry: &Entry, today: i64) -> Observation {
    let facts = entry.facts().clone();
    let Key { direction, port, transport, peer } = &entry.key;
    let identity = match peer {
        PeerKey::Identity(id) => Some(id.as_str().to_owned()),
        PeerKey::Address(_) | PeerKey::Unknown => None,
    };
    let address = match peer {
        PeerKey::Address(address) => Some(*address),
        PeerKey::Identity(_) | PeerKey::Unknown => facts.address,
    };
    let client = Client {
        identity,
        address,
        name: facts.name.as_deref().map(str::to_owned),
        service: facts.service.as_deref().map(str::to_owned),
        dialled: facts.dialled,
        server_name: facts.server_name.map(String::from),
    };
    let refused_for = |last: LastRefusal| RefusedFor {
        reason: last.reason.into_owned(),
        policy: last.policy.to_string(),
        at: Timestamp::from_unix(last.at),
    };
    Observation {
        direction: *direction,
        port: *port,
        transport: *transport,
        peer: client,
        allowed: facts.allowed,
        refused: facts.refused,
        bytes_received: entry.received.load(Ordering::Relaxed),
        bytes_sent: entry.sent.load(Ordering::Relaxed),
        first_seen: Timestamp::from_unix(facts.first_seen),
        last_seen: Timestamp::from_unix(entry.last_seen()),
        last_refusal: facts.last_refusal.map(refused_for),
        days: facts.days.into_iter().filter(|count| is_kept(count.day, today)).collect(),
    }
}
