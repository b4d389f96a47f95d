//! Rate limits. Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most keys that are remembered; buckets that are full again are forgotten first.
const MAX_KEYS: usize = 20_000;

/// A burst and a rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    /// How long it takes until one more may come.
    pub(crate) every: Duration,
}

impl Rate {
    pub(crate) fn per(count: u32, time: Duration) -> Self {
        let count = count.max(1);
        Self { burst: count, every: time.checked_div(count).unwrap_or(time) }
    }
}

/// One bucket for each key. A bucket is the time at which it will be full again (the generic cell rate algorithm).
pub(crate) struct Buckets<K> {
    full_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(crate) fn new() -> Self {
        Self { full_at: Mutex::new(HashMap::new()) }
    }

    /// Takes a token, or returns how long until one is available.
    pub(crate) fn take(&self, key: K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut table = self.lock();
        if table.len() >= MAX_KEYS && !table.contains_key(&key) {
            table.retain(|_, full_at| *full_at > now);
            if table.len() >= MAX_KEYS {
                return Err(Duration::from_secs(1));
            }
        }
        let full_at = table.get(&key).copied().unwrap_or(now).max(now);
        Self::wait(full_at, rate, now)?;
        table.insert(key, full_at + rate.every);
        Ok(())
    }

    /// Whether there is one, without taking it.
    pub(crate) fn has(&self, key: &K, rate: Rate, now: Instant) -> Result<(), Duration> {
        let full_at = self.lock().get(key).copied().unwrap_or(now).max(now);
        Self::wait(full_at, rate, now)
    }

    fn wait(full_at: Instant, rate: Rate, now: Instant) -> Result<(), Duration> {
        let room = rate.every.saturating_mul(rate.burst.saturating_sub(1));
        match full_at.saturating_duration_since(now).checked_sub(room) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Instant>> {
        self.full_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let (buckets, now) = (Buckets::new(), Instant::now());
        let rate = Rate::per(3, Duration::from_secs(60));
        let taken = |now| (0..10).take_while(|_| buckets.take("a", rate, now).is_ok()).count();
        assert_eq!(taken(now), 3);
        assert_eq!(buckets.take("a", rate, now), Err(Duration::from_secs(20)));
        assert!(buckets.has(&"a", rate, now).is_err() && buckets.has(&"b", rate, now).is_ok());
        assert_eq!(taken(now + Duration::from_secs(20)), 1);
        assert_eq!(taken(now + Duration::from_secs(600)), 3);
        assert!(buckets.take("b", rate, now).is_ok());
    }
}
