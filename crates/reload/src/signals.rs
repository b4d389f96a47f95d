//! What wakes the watching thread, and the debounce.
//!
//! Not a channel: a thousand changes are one piece of news, and the time of the first and the last is all that counts.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A change is acted upon when it has been quiet for so long, so that a writer of several files is read once.
pub(crate) const QUIET: Duration = Duration::from_millis(75);

/// A writer that never pauses is not waited for longer than this.
pub(crate) const PATIENCE: Duration = Duration::from_millis(500);

/// Why [`Signals::wait`] returned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wake {
    /// The watcher is being dropped.
    Stop,
    /// Somebody asked for a reload.
    Asked,
    /// The file system announced changes, and then it was quiet, or never quiet for [`PATIENCE`].
    Announced,
    /// The time that was waited for has come.
    Timer,
}

#[derive(Debug, Default)]
pub(crate) struct Signals {
    pending: Mutex<Pending>,
    news: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    stop: bool,
    asked: bool,
    changes: Option<Changes>,
}

#[derive(Clone, Copy, Debug)]
struct Changes {
    first: Instant,
    last: Instant,
}

impl Changes {
    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + PATIENCE)
    }
}

impl Signals {
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.news.notify_one();
    }

    pub(crate) fn ask(&self) {
        self.lock().asked = true;
        self.news.notify_one();
    }

    pub(crate) fn changed(&self, now: Instant) {
        let mut pending = self.lock();
        let first = pending.changes.map_or(now, |changes| changes.first);
        pending.changes = Some(Changes { first, last: now });
        self.news.notify_one();
    }

    /// Waits for news, at most until `until`; changes that were announced are waited out first.
    pub(crate) fn wait(&self, until: Instant) -> Wake {
        let mut pending = self.lock();
        loop {
            if pending.stop {
                return Wake::Stop;
            }
            if pending.asked {
                *pending = Pending::default();
                return Wake::Asked;
            }
            let due = pending.changes.map_or(until, Changes::due);
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return if pending.changes.take().is_some() { Wake::Announced } else { Wake::Timer };
            }
            pending = self.news.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every change of `Pending` is one assignment, so a panic elsewhere cannot have left it half done.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_waits_for_quiet_but_not_for_ever() {
        let start = Instant::now();
        let one = Changes { first: start, last: start };
        assert_eq!(one.due(), start + QUIET);
        let busy = Changes { first: start, last: start + PATIENCE };
        assert_eq!(busy.due(), start + PATIENCE);
    }

    #[test]
    fn many_changes_wake_once_and_a_request_takes_them_along() {
        let signals = Signals::default();
        let past = Instant::now().checked_sub(PATIENCE).unwrap();
        for _ in 0..1000 {
            signals.changed(past);
        }
        assert_eq!(signals.wait(past), Wake::Announced);
        assert_eq!(signals.wait(past), Wake::Timer);

        signals.changed(past);
        signals.ask();
        assert_eq!(signals.wait(past), Wake::Asked);
        assert_eq!(signals.wait(past), Wake::Timer);

        signals.ask();
        signals.stop();
        assert_eq!(signals.wait(past), Wake::Stop);
    }
}
