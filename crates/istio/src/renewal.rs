//! When a certificate is renewed: istio-agent's grace period and jitter.

use std::time::Duration;

/// When a certificate is renewed, in millionths of its lifetime.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Renewal {
    /// The part of the lifetime that is left then.
    pub grace: u32,
    /// The most that is added or subtracted at random.
    pub jitter: u32,
}

/// The whole lifetime, in the unit of [`Renewal`].
pub(crate) const WHOLE: u32 = 1_000_000;
/// A smaller grace would leave no time for a second attempt.
pub(crate) const MIN_GRACE: u32 = 50_000;
/// A larger grace would renew each certificate right after it was issued.
pub(crate) const MAX_GRACE: u32 = 950_000;

impl Default for Renewal {
    /// At half of the lifetime, plus or minus a tenth of that. Istio's jitter is 0.01, which is narrow for many sidecars that
    /// start together.
    fn default() -> Self {
        Self { grace: 500_000, jitter: 50_000 }
    }
}

impl Renewal {
    /// The earliest and the latest time of a renewal, counted from the start of the lifetime.
    #[must_use]
    pub fn window(self, life: Duration) -> (Duration, Duration) {
        let after = |left: u32| life / 1000 * ((WHOLE - left.clamp(MIN_GRACE, MAX_GRACE)) / 1000);
        (after(self.grace.saturating_add(self.jitter)), after(self.grace.saturating_sub(self.jitter)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_stays_within_the_lifetime() {
        let life = Duration::from_secs(1000);
        let window = |grace, jitter| {
            let (from, until) = Renewal { grace, jitter }.window(life);
            (from.as_secs(), until.as_secs())
        };
        assert_eq!(window(500_000, 50_000), (450, 550));
        assert_eq!(window(250_000, 10_000), (740, 760));
        assert_eq!(window(500_000, 500_000), (50, 950), "never right after issuance, never at the end");
        assert_eq!(Renewal::default().window(Duration::MAX).0, Duration::MAX / 1000 * 450, "no overflow");
    }
}
