//! The table.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::entry::Entry;
use crate::eviction::EvictionIndex;
use crate::key::{ConnAttributes, Key, RefusalCause};

/// The number of locks, so that workers rarely wait for each other.
const SHARDS: usize = 16;

/// The observations of one sidecar. A clone is a pointer.
#[derive(Clone)]
pub struct Ledger(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) clock: Arc<dyn Clock>,
    max: usize,
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, Arc<Entry>>>; SHARDS],
    eviction: Mutex<EvictionIndex>,
    pub(crate) history: Mutex<History>,
    pub(crate) evicted: AtomicU64,
    pub(crate) is_persistent: AtomicBool,
    pub(crate) write_failures: AtomicU64,
    /// Something is not written yet.
    pub(crate) is_dirty: AtomicBool,
    /// Something that should be written soon.
    pub(crate) urgent: Urgent,
}

/// What is known of the time before this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    /// Since when connections are observed.
    pub(crate) since: i64,
    /// For how many seconds, before this process.
    pub(crate) observed_before: u64,
}

/// Wakes the thread that writes.
#[derive(Default)]
pub(crate) struct Urgent {
    is_raised: AtomicBool,
    is_stopped: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
}

/// An observation to which an open connection belongs.
pub struct Observed {
    entry: Arc<Entry>,
    ledger: Ledger,
}

impl Ledger {
    /// Observations that are kept unless configured.
    pub const DEFAULT_MAX: usize = 10_000;

    /// The clock that it counts with.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// An empty table of at most so many observations, in memory.
    #[must_use]
    pub fn new(max: usize, clock: Arc<dyn Clock>) -> Self {
        let history = History { since: clock.now_unix(), observed_before: 0 };
        Self(Arc::new(Inner {
            clock,
            max: max.max(1),
            hasher: RandomState::new(),
            shards: Default::default(),
            eviction: Mutex::default(),
            history: Mutex::new(history),
            evicted: AtomicU64::new(0),
            is_persistent: AtomicBool::new(false),
            write_failures: AtomicU64::new(0),
            is_dirty: AtomicBool::new(false),
            urgent: Urgent::default(),
        }))
    }

    /// A connection was let through.
    #[must_use]
    pub fn allow(&self, seen: &ConnAttributes<'_>) -> Observed {
        Observed { entry: self.count(seen, None), ledger: self.clone() }
    }

    /// A connection was refused.
    pub fn refuse(&self, seen: &ConnAttributes<'_>, refusal: &RefusalCause<'_>) {
        self.count(seen, Some(refusal));
    }

    /// How many observations there are.
    #[must_use]
    pub fn observation_count(&self) -> usize {
        lock(&self.0.eviction).count()
    }

    /// How many were given up to stay below the limit.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }

    /// How often the file could not be written.
    #[must_use]
    pub fn write_failures(&self) -> u64 {
        self.0.write_failures.load(Ordering::Relaxed)
    }

    fn count(&self, seen: &ConnAttributes<'_>, refusal: Option<&RefusalCause<'_>>) -> Arc<Entry> {
        let now = self.0.clock.now_unix();
        let key = Key::of(seen);
        let known = self.shard(&key).get(&key).cloned();
        let is_new = known.is_none();
        let entry = known.unwrap_or_else(|| self.insert(key, now, now));
        let is_news = entry.count(seen, refusal, now);
        self.mark(is_new || is_news);
        entry
    }

    /// The entry of a key that was not there a moment ago.
    pub(crate) fn insert(&self, key: Key, first_seen: i64, last_seen: i64) -> Arc<Entry> {
        let mut eviction = lock(&self.0.eviction);
        if let Some(entry) = self.shard(&key).get(&key) {
            return Arc::clone(entry);
        }
        let entry = Arc::new(Entry::new(key, first_seen, last_seen));
        for evicted in eviction.add(&entry, self.0.max) {
            self.shard(&evicted.key).remove(&evicted.key);
            self.0.evicted.fetch_add(1, Ordering::Relaxed);
        }
        self.shard(&entry.key).insert(entry.key.clone(), Arc::clone(&entry));
        entry
    }

    /// Every entry, in no order.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.0.shards.iter().flat_map(|shard| lock(shard).values().cloned().collect::<Vec<_>>()).collect()
    }

    pub(crate) fn mark(&self, is_urgent: bool) {
        if !self.0.is_dirty.load(Ordering::Relaxed) {
            self.0.is_dirty.store(true, Ordering::Release);
        }
        if is_urgent {
            self.0.urgent.raise();
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, Arc<Entry>>> {
        let hash = self.0.hasher.hash_one(key);
        #[allow(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            reason = "a number below the length of the array"
        )]
        lock(&self.0.shards[(hash % SHARDS as u64) as usize])
    }
}

impl Observed {
    /// Bytes that have passed since the last call: from client to server, and back.
    pub fn moved(&self, received: u64, sent: u64) {
        if received > 0 || sent > 0 {
            self.entry.moved(received, sent, self.ledger.0.clock.now_unix());
            self.ledger.mark(false);
        }
    }

    /// The connection was cut, because it would be refused now.
    pub fn cut(&self, refusal: &RefusalCause<'_>) {
        let is_news = self.entry.cut(refusal, self.ledger.0.clock.now_unix());
        self.ledger.mark(is_news);
    }
}

impl Urgent {
    /// Wakes the thread if it was not woken already.
    pub(crate) fn raise(&self) {
        if !self.is_raised.load(Ordering::Relaxed) && !self.is_raised.swap(true, Ordering::AcqRel) {
            self.notify();
        }
    }

    /// Wakes the thread for the last time.
    pub(crate) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.notify();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(crate) fn lower(&self) {
        self.is_raised.store(false, Ordering::Release);
    }

    /// Waits until it is raised or stopped, or only until it is stopped; at most so long. Returns whether it is raised.
    pub(crate) fn wait(&self, at_most: Duration, only_stopped: bool) -> bool {
        let guard = lock(&self.lock);
        let is_raised = || self.is_raised.load(Ordering::Acquire);
        let goes_on = |(): &mut ()| !self.is_stopped() && (only_stopped || !is_raised());
        drop(self.wake.wait_timeout_while(guard, at_most, goes_on));
        is_raised()
    }

    fn notify(&self) {
        // Who is about to wait has the lock, and has looked already.
        drop(lock(&self.lock));
        self.wake.notify_all();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the locks guard is whole after each step, so a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
