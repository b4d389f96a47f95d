//! A bound on connections that one source cannot use up for the others.
//!
//! When every place is taken the oldest goes, since an honest caller is done within a second; a source address that holds
//! half of them loses its own oldest.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub(crate) struct Places {
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
pub(crate) struct Place {
    places: Arc<Places>,
    age: u64,
    lost: oneshot::Receiver<()>,
}

impl Places {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, table: Mutex::default() })
    }

    /// A place for one more, at the cost of an older one if need be.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Place {
        let (evict, lost) = oneshot::channel();
        let mut table = self.lock();
        let own = table.held.values().filter(|(held_by, _)| *held_by == source).count();
        if own.saturating_mul(2) >= self.limit {
            table.drop_oldest(|held_by| held_by == source);
        } else if table.held.len() >= self.limit {
            table.drop_oldest(|_| true);
        }
        let age = table.next;
        table.next = age.saturating_add(1);
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
    pub(crate) async fn lost(&mut self) {
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

    #[test]
    fn who_holds_half_loses_its_own_oldest() {
        let places = Places::new(8);
        let source = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut honest = places.enter(source(1));
        let mut flood: Vec<Place> = (0..50).map(|_| places.enter(source(2))).collect();
        assert!(honest.lost.try_recv().is_err());
        let kept = flood.iter_mut().filter_map(|place| place.lost.try_recv().err()).count();
        assert_eq!((kept, places.lock().held.len()), (4, 5));
    }
}
