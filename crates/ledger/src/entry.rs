//! The counters of one observation.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_api::{DayCount, Direction, Timestamp};

use crate::key::{ConnAttributes, Key, PeerKey, RefusalCause};

/// Days that are counted one by one.
const DAYS: i64 = 8;
/// A client without an identity counts as new until it was seen again so many seconds after the first time.
pub(crate) const KNOWN_AFTER: i64 = 3600;

/// One observation.
pub(crate) struct Entry {
    pub(crate) key: Key,
    /// In the table. One that was given up may still be held by an open connection.
    pub(crate) is_listed: AtomicBool,
    pub(crate) last_seen: AtomicI64,
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    facts: Mutex<Facts>,
}

/// What one lock guards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) allowed: u64,
    pub(crate) refused: u64,
    pub(crate) first_seen: i64,
    pub(crate) last_refusal: Option<LastRefusal>,
    /// In order.
    pub(crate) days: Vec<DayCount>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) dialled: Option<IpAddr>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) service: Option<Arc<str>>,
    pub(crate) server_name: Option<Box<str>>,
}

#[derive(Clone, Debug)]
pub(crate) struct LastRefusal {
    pub(crate) reason: Cow<'static, str>,
    pub(crate) policy: Arc<str>,
    pub(crate) at: i64,
}

/// How much an observation is worth keeping, the least first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Class {
    /// A client without an identity that was not seen again [`KNOWN_AFTER`] the first time.
    New,
    /// Another client without an identity, or a server without one, which the workload itself dialled.
    Known,
    /// A peer with an identity.
    Verified,
}

impl Class {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Known, Self::Verified];
}

impl Entry {
    pub(crate) fn new(key: Key, first_seen: i64, last_seen: i64) -> Self {
        let facts = Facts { first_seen, ..Facts::default() };
        Self {
            key,
            is_listed: AtomicBool::new(false),
            last_seen: AtomicI64::new(last_seen),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            facts: Mutex::new(facts),
        }
    }

    pub(crate) fn facts(&self) -> MutexGuard<'_, Facts> {
        // Counters are whole after each step, so a panic leaves nothing half done.
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last_seen(&self) -> i64 {
        self.last_seen.load(Ordering::Relaxed)
    }

    pub(crate) fn class(&self) -> Class {
        match (&self.key.peer, self.key.direction) {
            (PeerKey::Identity(_), _) => Class::Verified,
            (_, Direction::Outbound) => Class::Known,
            _ if self.last_seen().saturating_sub(self.facts().first_seen) >= KNOWN_AFTER => Class::Known,
            _ => Class::New,
        }
    }

    /// A connection. Returns whether its refusal is of a kind that was not seen last.
    pub(crate) fn count(&self, seen: &ConnAttributes<'_>, refusal: Option<&RefusalCause<'_>>, now: i64) -> bool {
        self.last_seen.store(now, Ordering::Relaxed);
        let mut facts = self.facts();
        facts.update_attributes(seen);
        match refusal {
            None => {
                facts.allowed = facts.allowed.saturating_add(1);
                let today = facts.today(now);
                today.allowed = today.allowed.saturating_add(1);
                false
            }
            Some(refusal) => facts.refuse(refusal, now),
        }
    }

    /// An open connection was cut.
    pub(crate) fn cut(&self, refusal: &RefusalCause<'_>, now: i64) -> bool {
        self.last_seen.store(now, Ordering::Relaxed);
        self.facts().refuse(refusal, now)
    }

    pub(crate) fn moved(&self, received: u64, sent: u64, now: i64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.last_seen.store(now, Ordering::Relaxed);
    }
}

impl Facts {
    /// Takes over what may be another value with each connection. Allocates only if it is.
    fn update_attributes(&mut self, seen: &ConnAttributes<'_>) {
        if let Some(address) = seen.address {
            self.address = Some(address.to_canonical());
        }
        if let Some(dialled) = seen.dialled {
            self.dialled = Some(dialled.to_canonical());
        }
        if let Some(service) = seen.service
            && self.service.as_ref() != Some(service)
        {
            self.service = Some(Arc::clone(service));
        }
        if let Some(name) = seen.server_name
            && self.server_name.as_deref() != Some(name)
        {
            self.server_name = Some(name.into());
        }
    }

    fn refuse(&mut self, refusal: &RefusalCause<'_>, now: i64) -> bool {
        self.refused = self.refused.saturating_add(1);
        let today = self.today(now);
        today.refused = today.refused.saturating_add(1);
        if let Some(last) = &mut self.last_refusal
            && last.reason == refusal.reason
            && last.policy == *refusal.policy
        {
            last.at = now;
            return false;
        }
        let policy = Arc::clone(refusal.policy);
        self.last_refusal = Some(LastRefusal { reason: Cow::Borrowed(refusal.reason), policy, at: now });
        true
    }

    fn today(&mut self, now: i64) -> &mut DayCount {
        if now < self.first_seen {
            // The clock was set back.
            self.first_seen = now;
        }
        let day = Timestamp::from_unix(now).day();
        let at = match self.days.binary_search_by_key(&day, |count| count.day) {
            Ok(at) => at,
            Err(_) => {
                self.days.retain(|count| is_kept(count.day, day));
                let at = self.days.partition_point(|count| count.day < day);
                self.days.insert(at, DayCount { day, ..DayCount::default() });
                at
            }
        };
        // Found, or inserted just now.
        #[allow(clippy::indexing_slicing, reason = "the search returned its position")]
        &mut self.days[at]
    }

    /// Adds what another time of this process, or another process, counted.
    pub(crate) fn merge(&mut self, other: Self) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.refused = self.refused.saturating_add(other.refused);
        self.first_seen = self.first_seen.min(other.first_seen);
        if self.last_refusal.as_ref().is_none_or(|own| other.last_refusal.as_ref().is_some_and(|last| last.at > own.at))
        {
            self.last_refusal = other.last_refusal;
        }
        for DayCount { day, allowed, refused } in other.days {
            match self.days.binary_search_by_key(&day, |count| count.day).map(|at| self.days.get_mut(at)) {
                Ok(Some(count)) => {
                    count.allowed = count.allowed.saturating_add(allowed);
                    count.refused = count.refused.saturating_add(refused);
                }
                Ok(None) => {}
                Err(at) => self.days.insert(at, DayCount { day, allowed, refused }),
            }
        }
        self.address = self.address.or(other.address);
        self.dialled = self.dialled.or(other.dialled);
        self.name = self.name.take().or(other.name);
        self.service = self.service.take().or(other.service);
        self.server_name = self.server_name.take().or(other.server_name);
    }
}

/// Whether a day is one of the last eight.
pub(crate) const fn is_kept(day: i64, today: i64) -> bool {
    day > today - DAYS
}
