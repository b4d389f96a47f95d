//! A set of names that is kept up to date.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::error::LookupError;
use crate::resolver::{Answer, LOOKUP_TIMEOUT, Lookup, Resolver};
use crate::table::{Table, lower_case};
use counts::Counts;
use entry::Entry;
pub use round::MIN_ROUND_INTERVAL;
use round::Rounds;

mod counts;
mod entry;
mod round;
#[cfg(test)]
mod tests;

/// How many names are asked for at once. Each takes two sockets.
const MAX_LOOKUPS: usize = 32;

/// A set of names and their addresses. Every method but [`Names::run`] may be called from any thread at any time.
pub struct Names {
    lookup: Arc<dyn Lookup>,
    table: ArcSwap<Table>,
    entries: Mutex<HashMap<Arc<str>, Entry>>,
    changed: watch::Sender<u64>,
    /// Something is due earlier than [`Names::run`] knows.
    earlier: Notify,
    slots: Arc<Semaphore>,
    rounds: Rounds,
    counts: Counts,
}

/// What one lookup found, and when it began.
struct Finished {
    name: Arc<str>,
    began: Instant,
    answer: Result<Answer, LookupError>,
}

impl Names {
    /// An empty set. Asks nothing.
    #[must_use]
    pub fn new(resolver: Resolver) -> Arc<Self> {
        Self::with_lookup(Arc::new(resolver))
    }

    /// An empty set whose names are looked up by anything.
    #[must_use]
    pub fn with_lookup(lookup: Arc<dyn Lookup>) -> Arc<Self> {
        Arc::new(Self {
            lookup,
            table: ArcSwap::default(),
            entries: Mutex::default(),
            changed: watch::Sender::new(0),
            earlier: Notify::new(),
            slots: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            rounds: Rounds::default(),
            counts: Counts::default(),
        })
    }

    /// Replaces the set. Names that stay keep what is known about them; new ones count as failed until they are looked up, which
    /// [`Names::run`] does at once.
    pub fn watch(&self, names: impl IntoIterator<Item = Arc<str>>) {
        let mut entries = self.entries();
        let now = Instant::now();
        let mut before = std::mem::take(&mut *entries);
        for name in names {
            let name: Arc<str> = if *lower_case(&name) == *name { name } else { lower_case(&name).into() };
            if let MapEntry::Vacant(vacant) = entries.entry(name) {
                let known = before.remove(vacant.key());
                vacant.insert(known.unwrap_or_else(|| Entry::new(now)));
            }
        }
        self.publish(&entries);
        drop(entries);
        self.earlier.notify_one();
    }

    /// What is known now.
    #[must_use]
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Receives a new number each time that the table changes.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many lookups ended in which way: `ok`, `no_address`, `incomplete` and `error`.
    #[must_use]
    pub fn lookup_counts(&self) -> [(&'static str, u64); 4] {
        self.counts.get()
    }

    /// Looks up any name, once, for a caller that dials it. The set stays as it is.
    ///
    /// # Errors
    /// See [`Lookup::lookup`].
    pub async fn look_up_once(&self, name: &str) -> Result<Answer, LookupError> {
        self.lookup.lookup(name).await
    }

    /// Has the name looked up soon, since an address of it does not answer. At most once a second.
    pub fn refresh_soon(&self, name: &str) {
        if let Some(entry) = self.entries().get_mut(&*lower_case(name)) {
            entry.hasten(Instant::now());
        }
        self.earlier.notify_one();
    }

    /// Waits until all names have been looked up by lookups that began after this call, because `unknown` belongs to none of
    /// them. Takes [`LOOKUP_TIMEOUT`] at most behind the end of the round before, and the start of one round is
    /// [`MIN_ROUND_INTERVAL`] behind that of another. Returns at once if the same address waited for a round that began within
    /// that interval, or there are no names.
    pub async fn refresh_all(&self, unknown: IpAddr) {
        if self.entries().is_empty() {
            return;
        }
        let resolve = async |began: Instant| {
            let mut lookups = JoinSet::new();
            for name in self.entries().keys() {
                lookups.spawn(self.look_up(name, Some(began + LOOKUP_TIMEOUT)));
            }
            let mut batch: Vec<Finished> = Vec::with_capacity(lookups.len());
            while let Some(finished) = lookups.join_next().await {
                // A lookup that panicked changes nothing.
                batch.extend(finished);
            }
            self.apply(batch);
        };
        self.rounds.wait(unknown.to_canonical(), resolve).await;
    }

    /// Looks each name up when its last answer is no longer valid. Never returns; one task runs it.
    pub async fn run(&self) {
        let mut lookups = JoinSet::new();
        loop {
            let next = self.start_due(&mut lookups);
            tokio::select! {
                Some(finished) = lookups.join_next() => {
                    // All that have ended meanwhile: they make one table.
                    let mut batch: Vec<Finished> = finished.into_iter().collect();
                    while let Some(finished) = lookups.try_join_next() {
                        batch.extend(finished);
                    }
                    self.apply(batch);
                }
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    /// Starts every lookup that is due. Returns when the next one is.
    fn start_due(&self, lookups: &mut JoinSet<Finished>) -> Option<Instant> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (name, entry) in self.entries().iter_mut() {
            if entry.start_if_due(now) {
                lookups.spawn(self.look_up(name, None));
            }
            next = next.into_iter().chain([entry.due()]).min();
        }
        next
    }

    /// One lookup, of which not too many run at once. With a deadline it fails then; else it waits for its turn.
    fn look_up(&self, name: &Arc<str>, deadline: Option<Instant>) -> impl Future<Output = Finished> + Send + 'static {
        let (name, lookup, slots) = (Arc::clone(name), Arc::clone(&self.lookup), Arc::clone(&self.slots));
        async move {
            let mut began = Instant::now();
            let ask = async {
                let _slot = slots.acquire().await;
                began = Instant::now();
                lookup.lookup(&name).await
            };
            let answer = match deadline {
                None => ask.await,
                Some(deadline) => timeout_at(deadline, ask).await.unwrap_or(Err(LookupError::Timeout(LOOKUP_TIMEOUT))),
            };
            Finished { name, began, answer }
        }
    }

    /// Takes the answers over, and publishes a table if that changed anything.
    fn apply(&self, batch: Vec<Finished>) {
        let mut entries = self.entries();
        let mut changed = false;
        for Finished { name, began, answer } in batch {
            self.counts.add(&answer);
            // A name that is not watched any more has no entry.
            if let Some(entry) = entries.get_mut(&name) {
                changed |= entry.update(&name, answer, began);
            }
        }
        if changed {
            self.publish(&entries);
        }
    }

    fn publish(&self, entries: &HashMap<Arc<str>, Entry>) {
        let mut table = Table::default();
        for (name, entry) in entries {
            table.insert(name, entry.known(), entry.addresses());
        }
        table.sort();
        self.table.store(Arc::new(table));
        self.changed.send_modify(|number| *number = number.wrapping_add(1));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
