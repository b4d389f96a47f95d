//! A rate limit on access-log lines of refused connections: otherwise a client chooses how many lines are written.
//!
//! For each reason a number of lines a second is written; the rest is counted, and reported in one line. Metrics count every
//! connection, and at the level `debug` every line is written.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

/// Lines a second and reason. Far more than a mistake in a configuration causes, where each client deserves a line; at half a
/// kilobyte each, an attacker writes less than a gigabyte a day.
pub(crate) const LINES: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

/// What was written in the current second, by reason. Reasons are a closed set, so this is small.
#[derive(Default)]
pub(crate) struct LogRateLimit(Mutex<BTreeMap<&'static str, Window>>);

struct Window {
    began: Instant,
    written: u32,
    suppressed: u64,
}

impl LogRateLimit {
    /// Whether a line of this reason is to be written; otherwise it is counted here.
    pub(crate) fn admits(&self, reason: &'static str, now: Instant) -> bool {
        if tracing::enabled!(target: "access", Level::DEBUG) {
            return true;
        }
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(reason).or_insert(Window { began: now, written: 0, suppressed: 0 });
        if now.saturating_duration_since(window.began) >= WINDOW {
            (window.began, window.written) = (now, 0);
        }
        if window.written < LINES {
            window.written += 1;
            return true;
        }
        window.suppressed += 1;
        false
    }

    /// Logs one line for each reason with suppressed lines since the last call. To be called about once a second.
    pub(crate) fn log_suppressed(&self) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed_by_reason: Vec<(&str, u64)> = windows
            .iter_mut()
            .map(|(reason, window)| (*reason, std::mem::take(&mut window.suppressed)))
            .filter(|(_, suppressed)| *suppressed > 0)
            .collect();
        drop(windows);
        for (reason, suppressed) in suppressed_by_reason {
            tracing::warn!(
                target: "access", reason, suppressed,
                "more connections had this reason than are logged one by one; metrics count all, and access=debug logs each"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_lines_each_second() {
        let (rate_limit, start) = (LogRateLimit::default(), Instant::now());
        let written = |reason, after| (0..50).filter(|_| rate_limit.admits(reason, start + after)).count();
        assert_eq!(written("a", Duration::ZERO), 20);
        assert_eq!(written("a", Duration::from_millis(999)), 0);
        assert_eq!(written("b", Duration::from_millis(999)), 20, "another reason is not held back");
        assert_eq!(written("a", WINDOW), 20);
        let suppressed_by_reason =
            || rate_limit.0.lock().unwrap().values().map(|window| window.suppressed).collect::<Vec<_>>();
        assert_eq!(suppressed_by_reason(), [30 + 50 + 30, 30]);
        rate_limit.log_suppressed();
        assert_eq!(suppressed_by_reason(), [0, 0], "reported once");
    }

    /// Single refusals, however long they go on.
    #[test]
    fn a_trickle_is_never_held_back() {
        let (rate_limit, start) = (LogRateLimit::default(), Instant::now());
        for n in 0..1000 {
            assert!(rate_limit.admits("a", start + Duration::from_millis(51) * n), "{n}");
        }
    }
}
