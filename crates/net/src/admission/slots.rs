//! Slots whose limit evicts an older connection instead of refusing the newer one.
//!
//! At the limit the *oldest* connection without progress is evicted: an honest client sends its first message at once, so it
//! has made progress, or is done, long before it is the oldest. A source that holds half of the slots loses one of its own.
//! Only if every candidate has made progress, the oldest of those is evicted, so stalling after the first message gains
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ClientSource;

/// A bounded set of slots, shared by all tasks that accept.
pub struct EvictingSlots {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next_sequence: u64,
    /// By sequence, so the oldest comes first.
    entries: BTreeMap<u64, Entry>,
    /// Those without progress, by sequence.
    without_progress: BTreeMap<u64, ClientSource>,
    held_by_source: HashMap<ClientSource, usize>,
}

struct Entry {
    source: ClientSource,
    evicted: Arc<Notify>,
}

/// One connection's slot.
pub struct Slot {
    slots: Arc<EvictingSlots>,
    sequence: u64,
    evicted: Arc<Notify>,
}

impl EvictingSlots {
    /// `limit` free slots, at least one.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), table: Mutex::default() })
    }

    /// A slot for a connection from `address`. Evicts an older one if there is no free slot, or if the source already holds
    /// half of them.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, address: IpAddr) -> Slot {
        let source = ClientSource::of(address);
        let evicted = Arc::new(Notify::new());
        let mut table = self.lock();
        let held = table.held_by_source.get(&source).copied().unwrap_or_default();
        if held.saturating_mul(2) >= self.limit.max(2) {
            table.evict_one(Some(source));
        } else if table.entries.len() >= self.limit {
            table.evict_one(None);
        }
        let sequence = table.next_sequence;
        table.next_sequence += 1;
        table.entries.insert(sequence, Entry { source, evicted: Arc::clone(&evicted) });
        table.without_progress.insert(sequence, source);
        *table.held_by_source.entry(source).or_default() += 1;
        drop(table);
        Slot { slots: Arc::clone(self), sequence, evicted }
    }

    /// Evicts the oldest connection without progress, if there is one.
    pub fn evict_without_progress(&self) {
        let mut table = self.lock();
        if !table.without_progress.is_empty() {
            table.evict_one(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // No code in here panics with the lock held. After a bug, admission with a wrong count is better than none.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EvictingSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EvictingSlots").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Table {
    /// Evicts the oldest without progress, or else the oldest; of one source if one is given.
    fn evict_one(&mut self, of: Option<ClientSource>) {
        let matches = |source: &ClientSource| of.is_none_or(|of| of == *source);
        let stalled = self.without_progress.iter().find(|(_, source)| matches(source)).map(|(sequence, _)| *sequence);
        let oldest = || self.entries.iter().find(|(_, entry)| matches(&entry.source)).map(|(sequence, _)| *sequence);
        if let Some(entry) = stalled.or_else(oldest).and_then(|sequence| self.remove(sequence)) {
            entry.evicted.notify_one();
        }
    }

    fn remove(&mut self, sequence: u64) -> Option<Entry> {
        self.without_progress.remove(&sequence);
        let entry = self.entries.remove(&sequence)?;
        if let Some(held) = self.held_by_source.get_mut(&entry.source) {
            *held -= 1;
            if *held == 0 {
                self.held_by_source.remove(&entry.source);
            }
        }
        Some(entry)
    }
}

impl Slot {
    /// The connection has made progress: it is evicted only after all that have not.
    pub fn made_progress(&self) {
        self.slots.lock().without_progress.remove(&self.sequence);
    }

    /// Waits until the slot is evicted. The caller then closes the connection.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(self.sequence);
    }
}

#[cfg(test)]
mod tests;
