//! The moments at which a chain that a live connection rests on ends, so that it is closed then and not at the next reload.
//!
//! Nothing changes on disk when a root or an intermediate expires, so nobody announces anything. Each connection notes when
//! its path ends, and at the first of these moments every connection is asked as after a change. Few moments are known at a
//! time: all peers of one CA share theirs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::changes::Announcer;

/// A longer sleep would miss that the clock was set, or that the machine slept.
const LOOK: Duration = Duration::from_secs(30);
/// Moments that are kept. A peer whose CA makes an intermediate for each certificate must not fill memory; what is
/// forgotten is the farthest, and a path that ends there is closed at the next change.
const MOST: usize = 4096;

/// The last seconds of paths, in Unix time.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    ends: Mutex<BTreeSet<i64>>,
    earlier: Notify,
}

impl Expiries {
    /// A connection rests on a path whose last second this is.
    pub(crate) fn note(&self, not_after_unix: i64) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ends.first().is_none_or(|first| not_after_unix < *first);
        ends.insert(not_after_unix);
        if ends.len() > MOST {
            ends.pop_last();
        }
        drop(ends);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Announces a change whenever a path has ended. Never returns.
    pub(crate) async fn keep(&self, now_unix: impl Fn() -> i64, announcer: &Announcer) {
        loop {
            let now = now_unix();
            if self.take_past(now) {
                announcer.announce();
            }
            // A path is valid to the end of its last second.
            let left = self.first().map(|end| end.saturating_sub(now).saturating_add(1));
            let left = left.and_then(|left| u64::try_from(left).ok()).map_or(LOOK, Duration::from_secs);
            tokio::select! {
                () = sleep(left.min(LOOK)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn first(&self) -> Option<i64> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }

    /// Forgets what lies behind; says whether anything did.
    fn take_past(&self, now: i64) -> bool {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = ends.split_off(&now);
        !std::mem::replace(&mut *ends, ahead).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::changes::changes;

    #[tokio::test(start_paused = true)]
    async fn each_end_is_announced_once_it_is_over_and_not_before() {
        let (announcer, changes) = changes();
        let (expiries, clock) = (Arc::new(Expiries::default()), Arc::new(AtomicI64::new(1000)));
        let (kept, shown) = (Arc::clone(&expiries), Arc::clone(&clock));
        tokio::spawn(async move { kept.keep(|| shown.load(Ordering::Relaxed), &announcer).await });
        expiries.note(1010);
        let mut view = changes.view();
        let within = |seconds| Duration::from_secs(seconds);
        assert!(tokio::time::timeout(within(100), view.next()).await.is_err(), "the clock stands still");
        clock.store(1010, Ordering::Relaxed);
        assert!(tokio::time::timeout(within(100), view.next()).await.is_err(), "its last second");
        clock.store(1011, Ordering::Relaxed);
        tokio::time::timeout(within(31), view.next()).await.unwrap();
        assert_eq!(expiries.first(), None);
        // One that ends earlier than what is waited for is not overslept.
        expiries.note(2000);
        expiries.note(1011);
        clock.store(1012, Ordering::Relaxed);
        tokio::time::timeout(within(3), view.next()).await.unwrap();
        assert_eq!(expiries.first(), Some(2000));
    }

    #[test]
    fn the_farthest_is_forgotten_first() {
        let expiries = Expiries::default();
        (0..5000).for_each(|end| expiries.note(end));
        let ends = expiries.ends.lock().unwrap();
        assert_eq!((ends.len(), ends.first()), (MOST, Some(&0)));
    }
}
