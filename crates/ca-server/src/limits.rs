//! How often, and how many at once. Pure: time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most keys that are remembered; buckets that are full again are forgotten first.
const MAX_KEYS: usize = 20_000;

/// So many at once, and so many in a time.
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

    /// Takes one, or says after how long there is one.
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

/// Who shares a limit on sources: one IPv4 address, or one IPv6 network of 64 bits, within which addresses are free.
pub(crate) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How many requests are under way; a source has half of the room at most.
pub(crate) struct InFlight {
    limit: usize,
    by_source: Mutex<HashMap<IpAddr, usize>>,
}

/// One request's room, free again when it is dropped.
pub(crate) struct Room {
    in_flight: Arc<InFlight>,
    source: IpAddr,
}

impl InFlight {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, by_source: Mutex::default() })
    }

    /// Room for one more, if there is any.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Option<Room> {
        let mut table = self.lock();
        let all: usize = table.values().sum();
        let own = table.get(&source).copied().unwrap_or_default();
        if all >= self.limit || own.saturating_mul(2) >= self.limit {
            return None;
        }
        table.insert(source, own.saturating_add(1));
        drop(table);
        Some(Room { in_flight: Arc::clone(self), source })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut table = self.in_flight.lock();
        if let Some(own) = table.get_mut(&self.source) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                table.remove(&self.source);
            }
        }
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

    #[test]
    fn a_source_has_half_of_the_room() {
        let in_flight = InFlight::new(4);
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|ip| ip.parse().unwrap());
        let held: Vec<_> = (0..5).filter_map(|_| in_flight.enter(one)).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> = (0..5).filter_map(|_| in_flight.enter(two)).collect();
        assert_eq!(others.len(), 2);
        assert!(in_flight.enter("10.0.0.3".parse().unwrap()).is_none());
        drop(held);
        assert!(in_flight.enter(one).is_some());
        drop(others);
        assert!(in_flight.lock().is_empty(), "nothing is remembered of a source without a request");
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let [a, b, c] = ["2001:db8::1", "2001:db8::ffff:1", "::ffff:10.0.0.1"].map(|ip| source(ip.parse().unwrap()));
        assert_eq!(a, b);
        assert_eq!(c, IpAddr::from([10, 0, 0, 1]));
    }
}
