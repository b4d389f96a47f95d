//! Exponential backoff with jitter, so that workloads that failed together do not retry together.

use std::time::Duration;

/// The first delay is between half of this and all of it.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay, as in ztunnel.
pub const MAX_DELAY: Duration = Duration::from_secs(150);
/// The shortest delay.
pub const MIN_DELAY: Duration = Duration::from_millis(500);
/// The longest pause while something of our own is missing, such as a token that is still to be written: checking again
/// is cheap.
pub const MAX_LOCAL_DELAY: Duration = Duration::from_secs(5);

/// Random jitter (SplitMix64). Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    /// From a seed, which should differ between workloads.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration between the two, each as likely.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let width = most.saturating_sub(least);
        let share = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        // In two steps, so that no width overflows: share / 2^32 of it.
        let part = u128::from(share).saturating_mul(width.as_nanos()) >> 32;
        least.saturating_add(Duration::from_nanos(u64::try_from(part).unwrap_or(u64::MAX)))
    }

    /// A duration, a tenth of it more or less.
    pub fn about(&mut self, duration: Duration) -> Duration {
        let tenth = duration / 10;
        self.between(duration.saturating_sub(tenth), duration.saturating_add(tenth))
    }
}

/// Delays that double, each with jitter between half of it and all of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { failures: 0 }
    }

    /// One more failure: how long to wait, between [`MIN_DELAY`] and [`MAX_DELAY`].
    pub fn failed(&mut self, jitter: &mut Jitter) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let most = FIRST_DELAY.saturating_mul(factor).min(MAX_DELAY);
        jitter.between(most / 2, most)
    }

    /// It went well.
    pub const fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let (mut jitter, mut backoff) = (Jitter::new(7), Backoff::default());
        let mut most = FIRST_DELAY;
        for failures in 1..100 {
            let pause = backoff.failed(&mut jitter);
            assert!(most / 2 <= pause && pause <= most, "{failures}: {pause:?}");
            assert!((MIN_DELAY..=MAX_DELAY).contains(&pause));
            assert_eq!(backoff.failures(), failures);
            most = (most * 2).min(MAX_DELAY);
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut jitter) <= FIRST_DELAY);
    }

    #[test]
    fn chance_keeps_to_its_bounds_and_reaches_near_both() {
        let mut jitter = Jitter::new(1);
        let (least, most) = (Duration::from_secs(90), Duration::from_secs(110));
        let all: Vec<_> = (0..10_000).map(|_| jitter.about(Duration::from_secs(100))).collect();
        assert!(all.iter().all(|duration| (least..=most).contains(duration)));
        assert!(
            all.iter().min() < Some(&Duration::from_secs(91)) && all.iter().max() > Some(&Duration::from_secs(109))
        );
        assert_eq!(jitter.between(most, least), most, "no width, no harm");
        assert!(jitter.between(Duration::ZERO, Duration::MAX) <= Duration::MAX);
    }
}
