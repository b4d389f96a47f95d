//! What all connections to one endpoint share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long an endpoint is remembered that nobody connects to.
const FORGET: Duration = Duration::from_secs(600);

/// One endpoint. Times are kept in milliseconds since it was first used.
#[derive(Debug)]
pub(crate) struct EndpointState {
    active: AtomicU32,
    /// Failed connections since the last that was made.
    failures: AtomicU32,
    /// Ejections since it was well for long.
    ejections: AtomicU32,
    /// The end of the last ejection; 0 if there was none.
    ejected_until: AtomicU64,
    /// When somebody was about to connect to it.
    used: AtomicU64,
    born: Instant,
}

/// Counts one connection for as long as it lives.
#[derive(Debug)]
pub(crate) struct ActiveGuard(Arc<EndpointState>);

impl EndpointState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            active: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            used: AtomicU64::new(0),
            born: now,
        }
    }

    /// Open connections, and those that are being made.
    pub(super) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Counts one more connection.
    pub(crate) fn enter(self: &Arc<Self>) -> ActiveGuard {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveGuard(Arc::clone(self))
    }

    /// A connection was made.
    pub(crate) fn count_success(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// Returns how many failed in a row.
    pub(super) fn count_failure(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > self.at(now)
    }

    /// Leaves it out from now on; returns for how long. `length` says that by the number of the ejection, from 1. The number
    /// begins anew when the endpoint was well for longer than the longest.
    pub(super) fn eject(&self, now: Instant, length: impl Fn(u32) -> Duration) -> Duration {
        let well_for = self.at(now).saturating_sub(self.ejected_until.load(Ordering::Relaxed));
        if Duration::from_millis(well_for) > length(u32::MAX) {
            self.ejections.store(0, Ordering::Relaxed);
        }
        let number = self.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let ejection = length(number);
        self.failures.store(0, Ordering::Relaxed);
        self.ejected_until.store(self.at(now + ejection), Ordering::Relaxed);
        ejection
    }

    /// Somebody is about to connect to it.
    pub(super) fn count_use(&self, now: Instant) {
        self.used.store(self.at(now), Ordering::Relaxed);
    }

    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.born).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether it may be forgotten.
    pub(super) fn is_unused(&self, now: Instant) -> bool {
        let idle = self.at(now).saturating_sub(self.used.load(Ordering::Relaxed));
        self.active() == 0 && !self.is_ejected(now) && Duration::from_millis(idle) >= FORGET
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
