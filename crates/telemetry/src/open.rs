//! The connections that are open now.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use portcullis_ledger::Observed;

use crate::connection::{Bytes, Direction};
use crate::edge::Edge;
use crate::names::Service;

/// The number of locks, so that workers rarely wait for each other.
const SHARDS: usize = 16;

/// Every admitted connection that has not ended.
#[derive(Default)]
pub(crate) struct OpenConnections {
    shards: [Mutex<HashMap<u64, Arc<Open>>>; SHARDS],
}

/// What is known of an open connection.
pub(crate) struct Open {
    pub(crate) facts: OpenConnection,
    pub(crate) bytes: Bytes,
    pub(crate) edge: Arc<Edge>,
    pub(crate) observed: Observed,
    pub(crate) started: Instant,
    counted: [AtomicU64; 2],
}

/// An open connection, as `/connections` shows it.
#[derive(Clone, Debug)]
pub struct OpenConnection {
    /// Its number in logs.
    pub id: u64,
    /// Which side of the edge this proxy is on.
    pub direction: Direction,
    /// Who connected.
    pub src_addr: SocketAddr,
    /// What was dialled.
    pub dst_addr: Option<SocketAddr>,
    /// The authenticated peer.
    pub peer: Option<String>,
    /// The service that was dialled, if it is known.
    pub service: Option<Arc<Service>>,
    /// The label `port`.
    pub port: String,
    /// The mode it was admitted under.
    pub mode: &'static str,
    /// The policy that decided.
    pub policy: Arc<str>,
    /// `mtls`, `tls`, `plaintext` or `-`.
    pub transport: &'static str,
    /// The root that the peer's chain ends at: the SHA-256 of its certificate in hexadecimal.
    pub root: Option<Arc<String>>,
    /// Since when, as an age.
    pub age: Duration,
    /// Client to server.
    pub received: u64,
    /// Server to client.
    pub sent: u64,
}

impl Open {
    pub(crate) fn new(
        facts: OpenConnection,
        bytes: Bytes,
        edge: Arc<Edge>,
        observed: Observed,
        started: Instant,
    ) -> Self {
        Self { facts, bytes, edge, observed, started, counted: Default::default() }
    }

    /// Adds the bytes since the last call to the edge and to what was observed. May be called from several threads at once.
    pub(crate) fn flush(&self) {
        let [received, sent] = &self.counted;
        let (received, sent) = (newly_moved(&self.bytes.received, received), newly_moved(&self.bytes.sent, sent));
        self.edge.moved(received, sent);
        self.observed.moved(received, sent);
    }

    fn show(&self) -> OpenConnection {
        OpenConnection {
            age: self.started.elapsed(),
            received: self.bytes.received.load(Ordering::Relaxed),
            sent: self.bytes.sent.load(Ordering::Relaxed),
            ..self.facts.clone()
        }
    }
}

/// The bytes of `now` that are not in `counted` yet. Adds them to it, so that each byte is returned to one caller only.
fn newly_moved(now: &AtomicU64, counted: &AtomicU64) -> u64 {
    let now = now.load(Ordering::Relaxed);
    now.saturating_sub(counted.fetch_max(now, Ordering::Relaxed))
}

impl OpenConnections {
    fn shard(&self, id: u64) -> Option<std::sync::MutexGuard<'_, HashMap<u64, Arc<Open>>>> {
        let shard = self.shards.get(usize::try_from(id).unwrap_or_default() % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn insert(&self, open: Arc<Open>) {
        if let Some(mut shard) = self.shard(open.facts.id) {
            shard.insert(open.facts.id, open);
        }
    }

    pub(crate) fn remove(&self, id: u64) {
        if let Some(mut shard) = self.shard(id) {
            shard.remove(&id);
        }
    }

    pub(crate) fn for_each(&self, mut look: impl FnMut(&Open)) {
        for shard in &self.shards {
            for open in shard.lock().unwrap_or_else(PoisonError::into_inner).values() {
                look(open);
            }
        }
    }

    /// How many connections rest on each root.
    pub(crate) fn by_root(&self) -> BTreeMap<Arc<String>, u64> {
        let mut counts = BTreeMap::new();
        self.for_each(|open| {
            if let Some(root) = &open.facts.root {
                let count: &mut u64 = counts.entry(Arc::clone(root)).or_default();
                *count = count.saturating_add(1);
            }
        });
        counts
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<OpenConnection> {
        let mut all = Vec::new();
        self.for_each(|open| all.push(open.show()));
        all.sort_unstable_by_key(|connection| connection.id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_counted_once_however_often_it_is_looked_at() {
        let (now, counted) = (AtomicU64::new(0), AtomicU64::new(0));
        assert_eq!(newly_moved(&now, &counted), 0);
        now.store(7, Ordering::Relaxed);
        assert_eq!(newly_moved(&now, &counted), 7);
        assert_eq!(newly_moved(&now, &counted), 0);
        now.store(10, Ordering::Relaxed);
        assert_eq!(newly_moved(&now, &counted), 3);
    }

    #[test]
    fn many_threads_count_what_there_is_and_no_more() {
        let (now, counted, total) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        now.fetch_add(3, Ordering::Relaxed);
                        total.fetch_add(newly_moved(&now, &counted), Ordering::Relaxed);
                    }
                });
            }
        });
        total.fetch_add(newly_moved(&now, &counted), Ordering::Relaxed);
        assert_eq!(total.into_inner(), 120_000);
    }
}
