//! Time, injected.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of the process.
pub trait Clock: Send + Sync + 'static {
    /// Seconds since 1970 in UTC. May jump.
    fn now_unix(&self) -> i64;
    /// For how long the process has been running. Never jumps.
    fn running(&self) -> Duration;
}

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock of a process that started now.
    #[must_use]
    pub fn starting_now() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now_unix(&self) -> i64 {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
    }

    fn running(&self) -> Duration {
        self.started.elapsed()
    }
}
