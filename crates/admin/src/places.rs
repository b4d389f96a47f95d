//! A bound on connections that slow clients cannot use up for the others.
//!
//! When every place is taken, whoever came first goes and the newcomer stays: a probe sends its question at once and is
//! answered within a millisecond, so it is gone long before its turn. A source address that holds half of the places loses
//! its own oldest instead of somebody else's. The same idea as the data plane's `handshakes`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// All places of one address.
pub struct Places {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    /// By age.
    held: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// One connection's place, free again when it is dropped.
pub struct Place {
    places: Arc<Places>,
    age: u64,
    lost: oneshot::Receiver<()>,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("age", &self.age).finish_non_exhaustive()
    }
}

impl Places {
    /// So many, all free.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, table: Mutex::default() })
    }

    /// A place for one more, at the cost of an older one if need be.
    pub fn enter(self: &Arc<Self>, source: IpAddr) -> Place {
        let (evict, lost) = oneshot::channel();
        let mut table = self.lock();
        let own = table.held.values().filter(|(held_by, _)| *held_by == source).count();
        if own.saturating_mul(2) >= self.limit {
            table.drop_oldest(|held_by| held_by == source);
        } else if table.held.len() >= self.limit {
            table.drop_oldest(|_| true);
        }
        let age = table.next;
        table.next += 1;
        table.held.insert(age, (source, evict));
        drop(table);
        Place { places: Arc::clone(self), age, lost }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics halfway; what a bug left behind is still a table.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn drop_oldest(&mut self, of: impl Fn(IpAddr) -> bool) {
        let oldest = self.held.iter().find(|(_, (source, _))| of(*source)).map(|(age, _)| *age);
        if let Some((_, evict)) = oldest.and_then(|age| self.held.remove(&age)) {
            // It may just be ending by itself.
            let _ = evict.send(());
        }
    }
}

impl Place {
    /// Waits until the place is lost to somebody else.
    pub async fn lost(&mut self) {
        if (&mut self.lost).await.is_err() {
            // Not lost: nobody is left who could take it.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().held.remove(&self.age);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, n])
    }

    fn lost(places: &mut [Place]) -> Vec<bool> {
        places.iter_mut().map(|place| place.lost.try_recv().is_ok()).collect()
    }

    #[test]
    fn the_oldest_goes_and_the_newest_stays() {
        let places = Places::new(4);
        let mut held: Vec<Place> = (0..6).map(|n| places.enter(source(n))).collect();
        assert_eq!(lost(&mut held), [true, true, false, false, false, false]);
        drop(held);
        assert!(places.lock().held.is_empty());
    }

    #[test]
    fn who_holds_half_loses_its_own() {
        let places = Places::new(8);
        let mut honest = vec![places.enter(source(1))];
        let mut flood: Vec<Place> = (0..50).map(|_| places.enter(source(2))).collect();
        assert_eq!(lost(&mut honest), [false]);
        let kept: Vec<usize> =
            lost(&mut flood).iter().enumerate().filter(|(_, lost)| !**lost).map(|(n, _)| n).collect();
        assert_eq!(kept, [46, 47, 48, 49]);
    }
}
