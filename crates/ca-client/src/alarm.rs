//! When a failure that goes on deserves another line in the log: at first, and then at growing intervals.

use std::time::Duration;

/// The second line comes so long after the first; each interval is twice the one before.
const FIRST: Duration = Duration::from_secs(30);
/// And none is longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// What was said of a failure that goes on.
#[derive(Debug, Default)]
pub struct Alarm(Option<Said>);

#[derive(Debug)]
struct Said {
    reason: &'static str,
    next: Duration,
    interval: Duration,
}

impl Alarm {
    /// A failure at this time of the monotonic clock: whether it is to be told. Another reason than the last one told is
    /// news, but no sooner than the interval would have been at the beginning.
    pub fn failed(&mut self, now: Duration, reason: &'static str) -> bool {
        let Some(said) = &mut self.0 else {
            self.0 = Some(Said { reason, next: now.saturating_add(FIRST), interval: FIRST });
            return true;
        };
        let told = said.next.saturating_sub(said.interval);
        let news = said.reason != reason && now >= told.saturating_add(FIRST);
        if now < said.next && !news {
            return false;
        }
        said.reason = reason;
        said.interval = said.interval.saturating_mul(2).min(LONGEST);
        said.next = now.saturating_add(said.interval);
        true
    }

    /// It went well: whether that is to be told, since a failure was.
    pub fn succeeded(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_failures_is_some_thirty_lines_and_one_at_the_end() {
        let mut alarm = Alarm::default();
        assert!(!alarm.succeeded(), "nothing to take back");
        let told: Vec<u64> =
            (0..86_400).filter(|second| alarm.failed(Duration::from_secs(*second), "connect")).collect();
        assert_eq!(told.get(..5), Some([0, 30, 90, 210, 450].as_slice()));
        assert!(told.len() < 40, "{}", told.len());
        assert!(alarm.succeeded() && !alarm.succeeded());
        assert!(alarm.failed(Duration::from_secs(86_401), "connect"));
    }

    #[test]
    fn another_reason_is_news_but_does_not_flood() {
        let mut alarm = Alarm::default();
        let mut told = 0;
        for second in 0..3600 {
            let reason = if second % 2 == 0 { "connect" } else { "deadline" };
            told += u32::from(alarm.failed(Duration::from_secs(second), reason));
        }
        assert!((5..=121).contains(&told), "{told}");
    }
}
