//! What is remembered about one name, and when it is looked up next.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::LookupError;
use crate::resolver::{Answer, LOOKUP_TIMEOUT};
use crate::table::Known;

/// An answer is used for at least this long.
const MIN_VALIDITY: Duration = Duration::from_secs(1);
/// An answer is used for at most this long. Docker says 600 s for containers that come and go.
const MAX_VALIDITY: Duration = Duration::from_secs(30);
/// How long an address stays with a name after the last answer that contained it: some servers return a subset each time. It
/// ends with the next answer after that, complete or not; a lookup that failed takes no address away.
const ADDRESS_TTL: Duration = Duration::from_secs(90);
/// A lookup that never reports its end, since it panicked, is started again after this time.
const LOST: Duration = LOOKUP_TIMEOUT.saturating_mul(15);

/// One name.
pub(super) struct Entry {
    /// The addresses of the last answer.
    latest: Arc<[IpAddr]>,
    /// Each address with the time of the last answer that contained it.
    seen: HashMap<IpAddr, Instant>,
    /// No lookup has succeeded yet, or the last one failed or was incomplete.
    failed: bool,
    /// The failure has been logged.
    reported: bool,
    /// Failures in a row.
    failures: u32,
    /// The start of the newest lookup whose answer was taken over.
    answered: Option<Instant>,
    /// The start of the newest lookup.
    began: Option<Instant>,
    due: Instant,
}

impl Entry {
    /// A name that is due now.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            latest: Arc::from([]),
            seen: HashMap::new(),
            failed: true,
            reported: false,
            failures: 0,
            answered: None,
            began: None,
            due: now,
        }
    }

    pub(super) fn known(&self) -> Known {
        Known { latest: Arc::clone(&self.latest), failed: self.failed }
    }

    /// Every address that an answer contained not long ago.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.seen.keys().copied()
    }

    pub(super) const fn due(&self) -> Instant {
        self.due
    }

    /// Whether a lookup is to be started now; if so, the next one is not due before this one has ended.
    pub(super) fn start_if_due(&mut self, now: Instant) -> bool {
        if self.due > now {
            return false;
        }
        self.began = Some(now);
        self.due = now + LOST;
        true
    }

    /// Makes the next lookup due as soon as the last one is a second old.
    pub(super) fn hasten(&mut self, now: Instant) {
        let earliest = self.began.max(self.answered).map_or(now, |began| began + MIN_VALIDITY);
        self.due = self.due.min(earliest.max(now));
    }

    /// Takes over what a lookup found that began at `began`. Returns whether the table changes.
    pub(super) fn update(&mut self, name: &str, answer: Result<Answer, LookupError>, began: Instant) -> bool {
        // One that began earlier says nothing new.
        if self.answered.is_some_and(|answered| answered > began) {
            return false;
        }
        self.answered = Some(began);
        let before = (Arc::clone(&self.latest), self.failed, self.seen.len());
        let mut new_address = false;
        let error = match answer {
            Ok(Answer { addresses, valid_for, incomplete }) => {
                for address in &addresses {
                    new_address |= self.seen.insert(*address, began).is_none();
                }
                // Behind an incomplete answer too: a family that fails for ever must not keep what others own by now. The name
                // counts as failed, so an address that is forgotten here is not taken for a stranger's.
                self.seen.retain(|_, last| began.saturating_duration_since(*last) < ADDRESS_TTL);
                if *self.latest != *addresses {
                    self.latest = addresses.into();
                }
                self.due = began + valid_for.clamp(MIN_VALIDITY, MAX_VALIDITY);
                incomplete
            }
            Err(error) => {
                // 1 s, 2 s, 4 s and so on.
                let pause = MIN_VALIDITY.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
                self.failures = self.failures.saturating_add(1);
                self.due = began + pause.min(MAX_VALIDITY);
                Some(error)
            }
        };
        self.failed = error.is_some();
        if !self.failed {
            self.failures = 0;
        }
        match error {
            Some(error) if !self.reported => {
                self.reported = true;
                tracing::warn!(
                    name,
                    %error,
                    "a name cannot be looked up; its last addresses stay, and unknown addresses that may belong to it are refused"
                );
            }
            None if self.reported => {
                self.reported = false;
                tracing::info!(name, "a name that could not be looked up resolves again");
            }
            _ => {}
        }
        new_address || before != (Arc::clone(&self.latest), self.failed, self.seen.len())
    }
}
