//! What wakes the watching thread, and the debounce.
//!
//! Not a queue: any number of changes is one pair of times, so a burst of events needs no memory.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::observations::Observations;

/// The set is read after no change was announced for this time, so that a writer of several files causes one reload.
pub(crate) const QUIET: Duration = Duration::from_millis(75);

/// A writer that never pauses is not waited for longer than this.
pub(crate) const MAX_DEBOUNCE: Duration = Duration::from_millis(500);

/// Why the watching thread reads the set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wake {
    /// The watcher is being dropped.
    Stop,
    /// A reload was requested.
    Requested,
    /// The file system announced changes, and then it was quiet, or never quiet for [`MAX_DEBOUNCE`].
    Announced,
    /// Something changed, and no event says whether its writer is done.
    Suspected,
    /// A rescan or a planned second read is due.
    Timer,
}

/// What [`Inbox::take`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    /// Read the set now.
    Read(Wake),
    /// Nothing is due before this time.
    WaitUntil(Instant),
}

/// Requests and events for the watching thread, from other threads and from itself.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wakeup: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    stop: bool,
    requested: bool,
    /// Something may have changed, and no event says what.
    suspected: bool,
    changes: Option<Changes>,
    /// Some of the events of `changes` were lost.
    lost: bool,
    observed: Observations,
}

#[derive(Clone, Copy, Debug)]
struct Changes {
    first: Instant,
    last: Instant,
}

impl Changes {
    fn due(self) -> Instant {
        (self.last + QUIET).min(self.first + MAX_DEBOUNCE)
    }
}

impl Inbox {
    /// # Errors
    /// If the system has no file descriptor left.
    pub(crate) fn new() -> std::io::Result<Self> {
        let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { state: Mutex::default(), wakeup })
    }

    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.wake();
    }

    pub(crate) fn request(&self) {
        self.lock().requested = true;
        self.wake();
    }

    /// A change that events describe.
    pub(crate) fn announce(&self, now: Instant) {
        self.lock().announce(now);
        self.wake();
    }

    /// Events were lost: what they said is read after the debounce, and taken only if it is read twice.
    pub(crate) fn announce_loss(&self, now: Instant) {
        let mut state = self.lock();
        state.announce(now);
        state.lost = true;
        drop(state);
        self.wake();
    }

    /// A change that no event describes: it is read at once, and taken only if it is read twice.
    pub(crate) fn suspect(&self) {
        self.lock().suspected = true;
        self.wake();
    }

    /// Records what events report about single files.
    pub(crate) fn observe<T>(&self, note: impl FnOnce(&mut Observations) -> T) -> T {
        note(&mut self.lock().observed)
    }

    /// What is due at `now`, if nothing happens `until` then.
    pub(crate) fn take(&self, until: Instant, now: Instant) -> Next {
        // Emptied before the state is read, so that a later entry wakes the thread again.
        let _empty = rustix::io::read(&self.wakeup, &mut [0; 8]);
        self.lock().take(until, now)
    }

    /// Readable when [`take`](Self::take) may have a new answer.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    fn wake(&self) {
        // The counter is full only after 2^64 calls that the thread has not read; it is readable then.
        let _full = rustix::io::write(&self.wakeup, &1_u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of `State` is complete by itself, so a panic elsewhere cannot have left it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn announce(&mut self, now: Instant) {
        let first = self.changes.map_or(now, |changes| changes.first);
        self.changes = Some(Changes { first, last: now });
    }

    fn take(&mut self, until: Instant, now: Instant) -> Next {
        if self.stop {
            return Next::Read(Wake::Stop);
        }
        if std::mem::take(&mut self.requested) {
            (self.changes, self.suspected, self.lost) = (None, false, false);
            return Next::Read(Wake::Requested);
        }
        if std::mem::take(&mut self.suspected) {
            return Next::Read(Wake::Suspected);
        }
        let due = self.changes.map_or(until, Changes::due);
        if now < due {
            return Next::WaitUntil(due);
        }
        let lost = std::mem::take(&mut self.lost);
        Next::Read(match self.changes.take() {
            None => Wake::Timer,
            Some(_) if lost => Wake::Suspected,
            Some(_) => Wake::Announced,
        })
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
        let busy = Changes { first: start, last: start + MAX_DEBOUNCE };
        assert_eq!(busy.due(), start + MAX_DEBOUNCE);
    }

    #[test]
    fn many_changes_are_one_wake_and_a_request_takes_them_along() {
        let inbox = Inbox::new().unwrap();
        let start = Instant::now();
        let due = start + QUIET;
        for _ in 0..1000 {
            inbox.announce(start);
        }
        assert_eq!(inbox.take(due + QUIET, start), Next::WaitUntil(due));
        assert_eq!(inbox.take(due + QUIET, due), Next::Read(Wake::Announced));
        assert_eq!(inbox.take(due, due), Next::Read(Wake::Timer));
        inbox.announce_loss(start);
        assert_eq!(inbox.take(due, due), Next::Read(Wake::Suspected));

        inbox.announce(start);
        inbox.request();
        assert_eq!(inbox.take(due, start), Next::Read(Wake::Requested));
        assert_eq!(inbox.take(due, start), Next::WaitUntil(due));

        inbox.suspect();
        assert_eq!(inbox.take(due, start), Next::Read(Wake::Suspected));
        inbox.request();
        inbox.stop();
        assert_eq!(inbox.take(due, start), Next::Read(Wake::Stop));
    }
}
