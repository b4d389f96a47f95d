//! A clock that never goes back while the process runs.
//!
//! What ends at a time must not begin again because somebody set the clock back, nor last longer than it was meant to.

use std::sync::{Mutex, PoisonError};

use portcullis_tls::Clock;
use tokio::time::Instant;

/// Back by less than this is what a clock does that is kept in step.
const STEP: i64 = 2;

/// The system's clock, or what it would show if it had not been set back since.
#[derive(Debug)]
pub(super) struct ForwardClock {
    system: Clock,
    seen: Mutex<LastReading>,
}

#[derive(Debug)]
struct LastReading {
    unix: i64,
    at: Instant,
    is_told: bool,
}

impl ForwardClock {
    pub(super) fn new(system: Clock) -> Self {
        let unix = system.now_unix();
        Self { system, seen: Mutex::new(LastReading { unix, at: Instant::now(), is_told: false }) }
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = i64::try_from(seen.at.elapsed().as_secs()).unwrap_or(i64::MAX);
        let (expected, shown) = (seen.unix.saturating_add(elapsed), self.system.now_unix());
        if shown >= expected {
            *seen = LastReading { unix: shown, at: Instant::now(), is_told: false };
            return shown;
        }
        let behind = expected.saturating_sub(shown);
        if behind > STEP && !std::mem::replace(&mut seen.is_told, true) {
            tracing::warn!(seconds = behind, "the clock was set back; break-glass ends as if it had not been");
        }
        expected
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_back_goes_on_and_one_that_is_set_forward_counts() {
        let shown = Arc::new(AtomicU64::new(1_000));
        let clock = ForwardClock::new(Clock::shared(Arc::clone(&shown)));
        assert_eq!(clock.now(), 1_000);
        shown.store(100, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(clock.now(), 1_060, "as much later as has passed");
        shown.store(5_000, Ordering::Relaxed);
        assert_eq!(clock.now(), 5_000);
        shown.store(4_999, Ordering::Relaxed);
        assert_eq!(clock.now(), 5_000);
    }
}
