//! When the chains that open connections rest on expire, so that those connections are closed then and not at the next
//! reload.
//!
//! Nothing changes on disk when a root or an intermediate expires, so no reload announces it. Each connection registers the
//! expiry of its path, and at the first of these every connection re-authorises itself as after a change. Few expiries are
//! known at a time: all peers of one CA share theirs.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::changes::ChangeNotifier;

/// A longer sleep would miss that the clock was set, or that the machine was suspended.
const MAX_SLEEP: Duration = Duration::from_secs(30);
/// How many expiries are kept. A peer whose CA makes an intermediate for each certificate must not fill memory. Beyond the
/// bound the latest is dropped, and a connection that rests on it is closed at the next change.
const MAX_TRACKED: usize = 4096;

/// The last valid seconds of paths, in Unix time.
#[derive(Debug, Default)]
pub(crate) struct TrustExpiries {
    ends: Mutex<BTreeSet<i64>>,
    earlier: Notify,
}

impl TrustExpiries {
    /// Registers the last valid second of a connection's path.
    pub(crate) fn track(&self, not_after_unix: i64) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ends.first().is_none_or(|first| not_after_unix < *first);
        ends.insert(not_after_unix);
        if ends.len() > MAX_TRACKED {
            ends.pop_last();
        }
        drop(ends);
        if first {
            self.earlier.notify_one();
        }
    }

    /// Announces a change whenever a path has expired. Never returns.
    pub(crate) async fn run(&self, now_unix: impl Fn() -> i64, notifier: &ChangeNotifier) {
        loop {
            let now = now_unix();
            if self.remove_expired(now) {
                notifier.notify();
            }
            // A path is valid to the end of its last second.
            let left = self.first().map(|end| end.saturating_sub(now).saturating_add(1));
            let left = left.and_then(|left| u64::try_from(left).ok()).map_or(MAX_SLEEP, Duration::from_secs);
            tokio::select! {
                () = sleep(left.min(MAX_SLEEP)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    fn first(&self) -> Option<i64> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).first().copied()
    }

    /// Removes expired entries; returns whether there were any.
    fn remove_expired(&self, now: i64) -> bool {
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
    use crate::changes::change_channel;

    #[tokio::test(start_paused = true)]
    async fn each_end_is_announced_once_it_is_over_and_not_before() {
        let (notifier, changes) = change_channel();
        let (expiries, clock) = (Arc::new(TrustExpiries::default()), Arc::new(AtomicI64::new(1000)));
        let (kept, shown) = (Arc::clone(&expiries), Arc::clone(&clock));
        tokio::spawn(async move { kept.run(|| shown.load(Ordering::Relaxed), &notifier).await });
        expiries.track(1010);
        let mut view = changes.subscribe();
        let within = |seconds| Duration::from_secs(seconds);
        assert!(tokio::time::timeout(within(100), view.next()).await.is_err(), "the clock stands still");
        clock.store(1010, Ordering::Relaxed);
        assert!(tokio::time::timeout(within(100), view.next()).await.is_err(), "its last second");
        clock.store(1011, Ordering::Relaxed);
        tokio::time::timeout(within(31), view.next()).await.unwrap();
        assert_eq!(expiries.first(), None);
        // One that expires earlier than the one waited for is noticed in time.
        expiries.track(2000);
        expiries.track(1011);
        clock.store(1012, Ordering::Relaxed);
        tokio::time::timeout(within(3), view.next()).await.unwrap();
        assert_eq!(expiries.first(), Some(2000));
    }

    #[test]
    fn the_latest_is_dropped_first() {
        let expiries = TrustExpiries::default();
        (0..5000).for_each(|end| expiries.track(end));
        let ends = expiries.ends.lock().unwrap();
        assert_eq!((ends.len(), ends.first()), (MAX_TRACKED, Some(&0)));
    }
}
