//! Throttles log lines about a persistent failure: the first at once, then at growing intervals.

use std::time::Duration;

/// The interval between the first two lines; each later interval is twice as long.
const FIRST_INTERVAL: Duration = Duration::from_secs(30);
/// The longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// The log state of a persistent failure.
#[derive(Debug, Default)]
pub struct LogThrottle(Option<Logged>);

#[derive(Debug)]
struct Logged {
    reason: &'static str,
    next: Duration,
    interval: Duration,
}

impl LogThrottle {
    /// Records a failure at this monotonic time, and returns whether to log it. A new reason is logged earlier, but no sooner
    /// than the first interval after the last line.
    pub fn failed(&mut self, now: Duration, reason: &'static str) -> bool {
        let Some(logged) = &mut self.0 else {
            self.0 = Some(Logged { reason, next: now.saturating_add(FIRST_INTERVAL), interval: FIRST_INTERVAL });
            return true;
        };
        let last_line = logged.next.saturating_sub(logged.interval);
        let news = logged.reason != reason && now >= last_line.saturating_add(FIRST_INTERVAL);
        if now < logged.next && !news {
            return false;
        }
        logged.reason = reason;
        logged.interval = logged.interval.saturating_mul(2).min(MAX_INTERVAL);
        logged.next = now.saturating_add(logged.interval);
        true
    }

    /// Records a success, and returns whether to log it: only after a logged failure.
    pub fn succeeded(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_failures_is_some_thirty_lines_and_one_at_the_end() {
        let mut throttle = LogThrottle::default();
        assert!(!throttle.succeeded(), "nothing to take back");
        let logged: Vec<u64> =
            (0..86_400).filter(|second| throttle.failed(Duration::from_secs(*second), "connect")).collect();
        assert_eq!(logged.get(..5), Some([0, 30, 90, 210, 450].as_slice()));
        assert!(logged.len() < 40, "{}", logged.len());
        assert!(throttle.succeeded() && !throttle.succeeded());
        assert!(throttle.failed(Duration::from_secs(86_401), "connect"));
    }

    #[test]
    fn another_reason_is_news_but_does_not_flood() {
        let mut throttle = LogThrottle::default();
        let mut logged = 0;
        for second in 0..3600 {
            let reason = if second % 2 == 0 { "connect" } else { "deadline" };
            logged += u32::from(throttle.failed(Duration::from_secs(second), reason));
        }
        assert!((5..=121).contains(&logged), "{logged}");
    }
}
