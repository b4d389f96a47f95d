//! Limits that refuse the newcomer.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// A limit for each key, and one for all of them together. It counts what is held now: a key that holds nothing takes no
/// memory.
pub struct KeyedLimit<K> {
    per_key: Option<usize>,
    total: Option<usize>,
    held: Mutex<Held<K>>,
}

struct Held<K> {
    by_key: HashMap<K, usize>,
    total: usize,
}

/// One unit of a [`KeyedLimit`].
pub struct KeyedPermit<K: Eq + Hash> {
    limit: Arc<KeyedLimit<K>>,
    key: K,
}

impl<K: Eq + Hash + Clone> KeyedLimit<K> {
    /// At most `limit` for each key; `None` is no limit.
    #[must_use]
    pub fn per_key(limit: Option<usize>) -> Arc<Self> {
        Self::new(limit, None)
    }

    /// At most `limit` in all, of which one key has at most half.
    #[must_use]
    pub fn shared(limit: usize) -> Arc<Self> {
        Self::new(Some(limit.div_ceil(2)), Some(limit))
    }

    fn new(per_key: Option<usize>, total: Option<usize>) -> Arc<Self> {
        Arc::new(Self { per_key, total, held: Mutex::new(Held { by_key: HashMap::new(), total: 0 }) })
    }

    /// Whether anything is limited. If not, there is no need to acquire.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.per_key.is_some() || self.total.is_some()
    }

    /// One more for `key`, unless a limit is reached.
    #[must_use]
    pub fn try_acquire(self: &Arc<Self>, key: &K) -> Option<KeyedPermit<K>> {
        let mut held = self.lock();
        let own = held.by_key.get(key).copied().unwrap_or_default();
        if self.per_key.is_some_and(|limit| own >= limit) || self.total.is_some_and(|limit| held.total >= limit) {
            return None;
        }
        held.by_key.insert(key.clone(), own + 1);
        held.total += 1;
        drop(held);
        Some(KeyedPermit { limit: Arc::clone(self), key: key.clone() })
    }
}

impl<K> KeyedLimit<K> {
    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        // No code in here panics with the lock held.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> fmt::Debug for KeyedLimit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimit").field("per_key", &self.per_key).field("total", &self.total).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash> fmt::Debug for KeyedPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedPermit").finish_non_exhaustive()
    }
}

impl<K: Eq + Hash> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        let mut held = self.limit.lock();
        held.total = held.total.saturating_sub(1);
        if let Some(own) = held.by_key.get_mut(&self.key) {
            *own -= 1;
            if *own == 0 {
                held.by_key.remove(&self.key);
            }
        }
    }
}

/// An optional limit on one count, such as the connections of one listener over all workers.
#[derive(Clone, Debug, Default)]
pub struct CountLimit(Option<Arc<Semaphore>>);

/// One unit of a [`CountLimit`].
#[derive(Debug, Default)]
pub struct CountPermit(Option<Arc<Semaphore>>);

impl CountLimit {
    /// At most `limit`; `None` is no limit.
    #[must_use]
    pub fn new(limit: Option<usize>) -> Self {
        Self(limit.map(|limit| Arc::new(Semaphore::new(limit))))
    }

    /// One more, unless the limit is reached.
    #[must_use]
    pub fn try_acquire(&self) -> Option<CountPermit> {
        if let Some(free) = &self.0 {
            // Returned by the guard: a permit of tokio's is twice as large, and is held as long as the connection is open.
            free.try_acquire().ok()?.forget();
        }
        Some(CountPermit(self.0.clone()))
    }
}

impl CountPermit {
    /// Whether it counts against a limit. If not, there is no need to keep it.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for CountPermit {
    fn drop(&mut self) {
        if let Some(free) = &self.0 {
            free.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_cannot_take_the_permits_of_another_and_nothing_stays_behind() {
        let limit = KeyedLimit::per_key(Some(2));
        let (one, two) = (limit.try_acquire(&"a").unwrap(), limit.try_acquire(&"a").unwrap());
        for _ in 0..3 {
            assert!(limit.try_acquire(&"a").is_none());
        }
        let other = limit.try_acquire(&"b").unwrap();
        drop(one);
        let again = limit.try_acquire(&"a").unwrap();
        assert!(limit.try_acquire(&"a").is_none());
        drop((other, again, two));
        assert!(limit.lock().by_key.is_empty() && limit.lock().total == 0);
    }

    #[test]
    fn one_key_has_at_most_half_of_a_shared_limit() {
        let limit = KeyedLimit::shared(4);
        let held: Vec<_> = (0..5).filter_map(|_| limit.try_acquire(&1)).collect();
        assert_eq!(held.len(), 2);
        let others: Vec<_> = (0..5).filter_map(|_| limit.try_acquire(&2)).collect();
        assert_eq!(others.len(), 2);
        assert!(limit.try_acquire(&3).is_none());
        drop(held);
        assert!(limit.try_acquire(&1).is_some());
        drop(others);
        assert!(limit.lock().by_key.is_empty());
    }

    #[test]
    fn without_a_limit_everything_is_let_in() {
        let limit = KeyedLimit::per_key(None);
        assert!(!limit.is_limited());
        let permits: Vec<_> = (0..100).filter_map(|_| limit.try_acquire(&"a")).collect();
        assert_eq!(permits.len(), 100);
        let unlimited = CountLimit::new(None);
        assert!(unlimited.try_acquire().is_some_and(|permit| !permit.is_limited()));
    }

    #[test]
    fn a_count_is_released_with_its_permit() {
        let limit = CountLimit::new(Some(1));
        for _ in 0..3 {
            let one = limit.try_acquire();
            assert!(one.is_some_and(|permit| permit.is_limited() && limit.clone().try_acquire().is_none()));
        }
        assert!(limit.try_acquire().is_some());
    }
}
