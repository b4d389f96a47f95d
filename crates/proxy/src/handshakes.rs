//! A bound on connections that have not been admitted yet, which whoever is silent cannot use up for the others.
//!
//! When it is full, the *oldest* one that has not even sent a whole hello is dropped, never the newest: an honest client
//! sends its hello at once, and so is gone from that queue long before its turn. A source address that holds half of the
//! places loses one of its own instead. Only where everybody in question has sent a hello, the oldest of those goes.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// All places, shared by every worker.
pub(crate) struct Handshakes {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By age.
    places: BTreeMap<u64, Entry>,
    /// Ages of those without a whole hello.
    silent: BTreeMap<u64, IpAddr>,
    sources: HashMap<IpAddr, usize>,
}

struct Entry {
    source: IpAddr,
    evict: oneshot::Sender<()>,
}

/// One connection's place, free again when it is dropped.
pub(crate) struct Slot {
    handshakes: Arc<Handshakes>,
    age: u64,
    evicted: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), table: Mutex::default() })
    }

    /// A place for one more, at the cost of an older one if need be.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Slot {
        let (evict, evicted) = oneshot::channel();
        let mut table = self.lock();
        let held = table.sources.get(&source).copied().unwrap_or_default();
        if held.saturating_mul(2) >= self.limit.max(2) {
            table.drop_one(Some(source));
        } else if table.places.len() >= self.limit {
            table.drop_one(None);
        }
        let age = table.next;
        table.next += 1;
        table.places.insert(age, Entry { source, evict });
        table.silent.insert(age, source);
        *table.sources.entry(source).or_default() += 1;
        drop(table);
        Slot { handshakes: Arc::clone(self), age, evicted }
    }

    /// Drops the oldest without a whole hello, if there is one.
    pub(crate) fn drop_silent(&self) {
        let mut table = self.lock();
        if !table.silent.is_empty() {
            table.drop_one(None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics halfway; what a bug left behind is still a table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Drops the oldest without a whole hello, or else the oldest; of one source if one is named.
    fn drop_one(&mut self, of: Option<IpAddr>) {
        let ours = |source: &IpAddr| of.is_none_or(|of| of == *source);
        let silent = self.silent.iter().find(|(_, source)| ours(source)).map(|(age, _)| *age);
        let oldest = || self.places.iter().find(|(_, entry)| ours(&entry.source)).map(|(age, _)| *age);
        if let Some(age) = silent.or_else(oldest)
            && let Some(entry) = self.remove(age)
        {
            // It may just have been admitted: then there is nobody to tell.
            let _ = entry.evict.send(());
        }
    }

    fn remove(&mut self, age: u64) -> Option<Entry> {
        self.silent.remove(&age);
        let entry = self.places.remove(&age)?;
        if let Some(count) = self.sources.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&entry.source);
            }
        }
        Some(entry)
    }
}

/// Tells that the client has sent a whole hello, or whatever else it takes to decide.
pub(crate) struct Heard<'s>(&'s Handshakes, u64);

/// Waits until the place is lost to somebody else.
pub(crate) struct Lost<'s>(&'s mut oneshot::Receiver<()>);

impl Slot {
    /// One half for who judges the connection, and one for who ends it.
    pub(crate) fn split(&mut self) -> (Heard<'_>, Lost<'_>) {
        (Heard(&self.handshakes, self.age), Lost(&mut self.evicted))
    }
}

impl Heard<'_> {
    pub(crate) fn tell(&self) {
        self.0.lock().silent.remove(&self.1);
    }
}

impl Lost<'_> {
    pub(crate) async fn wait(&mut self) {
        if (&mut *self.0).await.is_err() {
            // Not lost but gone: the table has been dropped.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.handshakes.lock().remove(self.age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn is_lost(place: &mut Slot) -> bool {
        place.evicted.try_recv().is_ok()
    }

    fn sizes(handshakes: &Arc<Handshakes>) -> (usize, usize, usize) {
        let table = handshakes.lock();
        (table.places.len(), table.silent.len(), table.sources.values().sum())
    }

    #[test]
    fn the_oldest_silent_one_goes_and_never_the_newest() {
        let all = Handshakes::new(4);
        let mut places: Vec<Slot> = (0..4).map(|n| all.enter(source(n))).collect();
        places[0].split().0.tell();
        let mut fifth = all.enter(source(4));
        let lost: Vec<bool> = places.iter_mut().map(is_lost).collect();
        assert_eq!(lost, [false, true, false, false], "the first one has sent its hello");
        assert!(!is_lost(&mut fifth));
        assert_eq!(sizes(&all), (4, 3, 4));
    }

    #[test]
    fn where_all_have_been_heard_the_oldest_goes() {
        let all = Handshakes::new(3);
        let mut places: Vec<Slot> = (0..3).map(|n| all.enter(source(n))).collect();
        places.iter_mut().for_each(|place| place.split().0.tell());
        let mut late = all.enter(source(9));
        assert_eq!(places.iter_mut().map(is_lost).collect::<Vec<_>>(), [true, false, false]);
        assert!(!is_lost(&mut late));
    }

    #[test]
    fn who_holds_half_of_the_places_loses_its_own() {
        let all = Handshakes::new(8);
        let mut honest = all.enter(source(1));
        let mut flood: Vec<Slot> = (0..100).map(|_| all.enter(source(2))).collect();
        assert!(!is_lost(&mut honest));
        assert_eq!(flood.iter_mut().map(is_lost).filter(|lost| !lost).count(), 4);
        assert!(!is_lost(&mut flood[99]), "the newest stays");
        let others: Vec<Slot> = (3..6).map(|n| all.enter(source(n))).collect();
        assert_eq!(sizes(&all).0, 8);
        drop((others, flood, honest));
        assert_eq!(sizes(&all), (0, 0, 0), "nothing stays behind");
    }

    #[test]
    fn a_limit_of_one_still_lets_one_in() {
        let all = Handshakes::new(1);
        let mut one = all.enter(source(1));
        let mut two = all.enter(source(1));
        assert!(is_lost(&mut one) && !is_lost(&mut two));
    }
}
