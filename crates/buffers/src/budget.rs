//! How much memory stalled connections may keep, over all and for each peer.
//!
//! What is charged is known only after it was read: whether a receiver keeps up shows when it is written to. So a
//! connection asks before it reads whether there is room for what it might have to keep ([`Usage::has_room`]), and
//! charges what it keeps when it goes to sleep ([`Charge::set`]). In between, within one turn of one thread, nothing else
//! on that thread asks; threads together may exceed the limit by one turn's worth each.
//!
//! Both are relaxed atomics. A connection that keeps nothing only loads them.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use portcullis_wire::BATCH_LEN;

/// Of how many parts of the budget one peer may have one.
const PEER_SHARE: usize = 4;
/// What a direction may have to keep of one read: what was read, or what it became under TLS; and what a write to TLS
/// could not send before.
const HEADROOM: usize = 2 * BATCH_LEN;

/// The budget of all connections. `P` is what a peer is known by.
#[derive(Debug)]
pub struct Budget<P: Eq + Hash> {
    total: Arc<Total>,
    peers: Mutex<HashMap<P, Weak<Entry<P>>>>,
}

#[derive(Debug)]
struct Total {
    limit: usize,
    used: AtomicUsize,
    /// Connections that copy in small pieces now.
    limited: AtomicUsize,
}

/// What a peer has used of the budget. A handle for each connection; with the last one the peer is forgotten.
#[derive(Debug)]
pub struct Account<P: Eq + Hash>(Arc<Entry<P>>);

#[derive(Debug)]
struct Entry<P: Eq + Hash> {
    budget: Arc<Budget<P>>,
    peer: P,
    usage: Usage,
}

/// The part of an [`Account`] that connections use.
#[derive(Debug)]
pub struct Usage {
    total: Arc<Total>,
    used: AtomicUsize,
}

impl<P: Clone + Eq + Hash> Budget<P> {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        let total = Total { limit, used: AtomicUsize::new(0), limited: AtomicUsize::new(0) };
        Arc::new(Self { total: Arc::new(total), peers: Mutex::default() })
    }

    /// The account of a peer, for one more connection.
    #[must_use]
    pub fn open(self: &Arc<Self>, peer: &P) -> Account<P> {
        let mut peers = self.lock();
        if let Some(entry) = peers.get(peer).and_then(Weak::upgrade) {
            return Account(entry);
        }
        let usage = Usage { total: Arc::clone(&self.total), used: AtomicUsize::new(0) };
        let entry = Arc::new(Entry { budget: Arc::clone(self), peer: peer.clone(), usage });
        peers.insert(peer.clone(), Arc::downgrade(&entry));
        Account(entry)
    }
}

impl<P: Eq + Hash> Budget<P> {
    /// How many bytes all connections may keep.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.total.limit
    }

    /// How many bytes they keep now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.total.used.load(Ordering::Relaxed)
    }

    /// How many connections copy in small pieces now.
    #[must_use]
    pub fn limited(&self) -> usize {
        self.total.limited.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<P, Weak<Entry<P>>>> {
        // Nothing in here panics halfway.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Eq + Hash> Deref for Account<P> {
    type Target = Usage;

    fn deref(&self) -> &Usage {
        &self.0.usage
    }
}

impl<P: Eq + Hash> Drop for Entry<P> {
    fn drop(&mut self) {
        let mut peers = self.budget.lock();
        // By now the peer may have connected again and have another entry.
        if peers.get(&self.peer).is_some_and(|entry| entry.strong_count() == 0) {
            peers.remove(&self.peer);
        }
    }
}

impl Usage {
    /// Without a limit, and with no other user.
    #[must_use]
    pub fn unlimited() -> Self {
        let total = Total { limit: usize::MAX, used: AtomicUsize::new(0), limited: AtomicUsize::new(0) };
        Self { total: Arc::new(total), used: AtomicUsize::new(0) }
    }

    /// Whether a connection may read a whole buffer, which it has to keep if its receiver does not take it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let Total { limit, used, .. } = &*self.total;
        let fits = |used: &AtomicUsize, limit: usize| used.load(Ordering::Relaxed).saturating_add(HEADROOM) <= limit;
        fits(used, *limit) && fits(&self.used, limit / PEER_SHARE)
    }
}

/// What one connection keeps. Released when it is dropped.
#[derive(Debug)]
pub struct Charge<'a> {
    usage: &'a Usage,
    /// Held for each connection, so it is kept small.
    bytes: u32,
    limited: bool,
}

impl<'a> Charge<'a> {
    /// Nothing yet.
    #[must_use]
    pub const fn new(usage: &'a Usage) -> Self {
        Self { usage, bytes: 0, limited: false }
    }

    /// So many bytes.
    #[must_use]
    pub fn of(usage: &'a Usage, bytes: usize) -> Self {
        let mut charge = Self::new(usage);
        charge.set(bytes);
        charge
    }

    /// What it is charged to.
    #[must_use]
    pub const fn usage(&self) -> &'a Usage {
        self.usage
    }

    /// The connection keeps so many bytes now. Never refused: what was read has to be kept.
    pub fn set(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes != self.bytes {
            let before = std::mem::replace(&mut self.bytes, bytes);
            for used in [&self.usage.used, &self.usage.total.used] {
                shift(used, before as usize, bytes as usize);
            }
        }
    }

    /// Whether the connection copies in small pieces now.
    pub fn set_limited(&mut self, limited: bool) {
        if limited != self.limited {
            let before = std::mem::replace(&mut self.limited, limited);
            shift(&self.usage.total.limited, before.into(), limited.into());
        }
    }
}

fn shift(counter: &AtomicUsize, before: usize, after: usize) {
    if after > before {
        counter.fetch_add(after - before, Ordering::Relaxed);
    } else if before > after {
        counter.fetch_sub(before - after, Ordering::Relaxed);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.set(0);
        self.set_limited(false);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const LIMIT: usize = 64_000_000;

    #[test]
    fn one_peer_may_keep_a_quarter_and_others_still_have_room() {
        let budget = Budget::new(LIMIT);
        let (hostile, honest) = (budget.open(&"hostile"), budget.open(&"honest"));
        let mut charge = Charge::new(&hostile);
        charge.set(LIMIT / 4 - HEADROOM);
        assert!(hostile.has_room());
        charge.set(LIMIT / 4 - HEADROOM + 1);
        assert!(!hostile.has_room() && honest.has_room());
        assert!(!budget.open(&"hostile").has_room(), "the same peer with another connection");
    }

    #[test]
    fn together_they_may_keep_the_whole() {
        let budget = Budget::new(LIMIT);
        let peers: Vec<_> = (0..10).map(|number| budget.open(&number)).collect();
        let mut charges: Vec<_> = peers.iter().map(|peer| Charge::new(peer)).collect();
        for charge in &mut charges[..9] {
            charge.set(LIMIT / 10);
        }
        assert!(peers[9].has_room());
        charges[9].set(LIMIT / 10 - HEADROOM);
        assert!(peers[9].has_room());
        charges[9].set(LIMIT / 10 - HEADROOM + 1);
        assert!(!peers[9].has_room());
        assert_eq!(budget.used(), LIMIT - HEADROOM + 1);
    }

    #[test]
    fn what_is_kept_is_released_by_a_smaller_charge_and_by_drop_and_panics() {
        let budget = Budget::new(LIMIT);
        let account = budget.open(&"peer");
        let mut charge = Charge::new(&account);
        charge.set(1000);
        charge.set(300);
        charge.set_limited(true);
        charge.set_limited(true);
        assert_eq!((budget.used(), budget.limited()), (300, 1));
        drop(charge);
        assert_eq!((budget.used(), budget.limited()), (0, 0));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut charge = Charge::new(&account);
            charge.set(5000);
            charge.set_limited(true);
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!((budget.used(), budget.limited(), account.used.load(Ordering::Relaxed)), (0, 0, 0));
    }

    #[test]
    fn a_peer_without_a_connection_is_forgotten() {
        let budget = Budget::new(LIMIT);
        let (one, two) = (budget.open(&"peer"), budget.open(&"peer"));
        let mut charge = Charge::new(&one);
        charge.set(LIMIT);
        assert!(!two.has_room());
        drop(charge);
        drop(one);
        assert_eq!(budget.lock().len(), 1);
        drop(two);
        assert!(budget.lock().is_empty());
    }

    /// Threads that open, charge and leave at the same time lose no byte and no peer.
    #[test]
    fn many_threads_come_out_even() {
        let budget = Budget::new(LIMIT);
        std::thread::scope(|scope| {
            for thread in 0..4_usize {
                let budget = &budget;
                scope.spawn(move || {
                    for round in 0..2000 {
                        let account = budget.open(&(round % 3));
                        let mut charge = Charge::new(&account);
                        charge.set(round * 100 + thread);
                        charge.set(round);
                    }
                });
            }
        });
        assert_eq!((budget.used(), budget.lock().len()), (0, 0));
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        let usage = Usage::unlimited();
        let mut charge = Charge::new(&usage);
        charge.set(usize::MAX / 8);
        assert!(usage.has_room());
    }
}
