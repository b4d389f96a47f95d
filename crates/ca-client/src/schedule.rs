//! Decides when to call the CA: a state machine that takes the time as an argument.
//!
//! There are two times. Certificates are valid by the wall clock, which people and NTP set; pauses are measured by the
//! monotonic one. A renewal is due when *either* says so: the monotonic one if the wall clock was set back, and the wall
//! clock if it was set forward or the machine slept. After each attempt the next one is at least [`backoff::MIN_DELAY`] away by
//! the monotonic clock, so no step of the other makes it spin.

use std::time::Duration;

use portcullis_istio::Renewal;

use crate::backoff::{self, Backoff, Jitter};

/// A wait is at most so long, so that a wall clock that was set, or a machine that slept, is noticed.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// Bundles are asked for so often unless the authority hints otherwise (SPIFFE Federation 4.1 recommends five minutes).
pub const POLL_INTERVAL: Duration = Duration::from_secs(300);
/// Whatever the hint, no more often than this,
const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// and no less often than this.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A new certificate with less than this part of its life before it is a sign of a wrong clock. Authorities backdate by a
/// minute or so, which must not count in one that lives for seconds.
const MIN_LIFE_DIVISOR: u32 = 32;

/// Both times at one moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Wall clock, in Unix time.
    pub unix: i64,
    /// Monotonic clock, from an arbitrary start.
    pub monotonic: Duration,
}

/// The next action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Ask for a certificate.
    Fetch,
    /// Ask for the bundles.
    Poll,
    /// Nothing for so long; then look again.
    Wait(Duration),
}

/// Why there was no new certificate, as far as it changes when to try again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// A local file or key is missing or invalid; no request is sent.
    Local,
    /// The CA, or the connection to it. It may have sent a `retry-after`.
    Remote {
        /// When it wants the next request.
        retry_after: Option<Duration>,
    },
}

/// When the certificate in force ends, and by which times it is to be renewed.
#[derive(Clone, Copy, Debug)]
struct RenewalTimes {
    not_after: i64,
    due_unix: i64,
    due_monotonic: Duration,
}

/// The schedule of one workload.
#[derive(Clone, Debug)]
pub struct Schedule {
    jitter: Jitter,
    renewal: Renewal,
    current: Option<RenewalTimes>,
    /// After a failure: not before this.
    retry: Option<Duration>,
    backoff: Backoff,
    /// After any attempt: no other one before this, whatever the wall clock says.
    not_before: Duration,
    poll: Option<Duration>,
    poll_backoff: Backoff,
}

impl Schedule {
    /// Nothing is there, so the first certificate is due at once. The seed should differ between workloads.
    #[must_use]
    pub const fn new(seed: u64, renewal: Renewal) -> Self {
        Self {
            jitter: Jitter::new(seed),
            renewal,
            current: None,
            retry: None,
            backoff: Backoff::new(),
            not_before: Duration::ZERO,
            poll: None,
            poll_backoff: Backoff::new(),
        }
    }

    /// The action that is due now.
    #[must_use]
    pub fn next(&self, now: Now) -> Action {
        let fetch = self.fetch_in(now);
        if fetch.is_zero() {
            return Action::Fetch;
        }
        let poll = self.poll.map(|at| at.saturating_sub(now.monotonic));
        if poll.is_some_and(|wait| wait.is_zero()) {
            return Action::Poll;
        }
        Action::Wait(poll.map_or(fetch, |poll| poll.min(fetch)).min(MAX_WAIT))
    }

    /// When a certificate is to be asked for, by the wall clock. None before the first one.
    #[must_use]
    pub fn renewal_unix(&self, now: Now) -> Option<i64> {
        self.current?;
        let wait = i64::try_from(self.fetch_in(now).as_secs()).unwrap_or(i64::MAX);
        Some(now.unix.saturating_add(wait))
    }

    /// How long until a certificate is to be asked for.
    fn fetch_in(&self, now: Now) -> Duration {
        let wait = match (self.retry, self.current) {
            (Some(retry), _) => retry.saturating_sub(now.monotonic),
            (None, None) => Duration::ZERO,
            (None, Some(current)) => {
                let by_wall =
                    Duration::from_secs(u64::try_from(current.due_unix.saturating_sub(now.unix)).unwrap_or(0));
                current.due_monotonic.saturating_sub(now.monotonic).min(by_wall)
            }
        };
        wait.max(self.not_before.saturating_sub(now.monotonic))
    }

    /// A certificate was put in force. It is renewed at a random time within the window of [`Renewal`].
    pub fn fetched(&mut self, now: Now, not_before: i64, not_after: i64) {
        let seconds = |from: i64, to: i64| Duration::from_secs(u64::try_from(to.saturating_sub(from)).unwrap_or(0));
        // What is left, since it may be backdated; and never more than its whole life, which a clock that is slow would see.
        let whole = seconds(not_before, not_after);
        let life = seconds(now.unix, not_after).min(whole);
        let wait = if life < whole / MIN_LIFE_DIVISOR {
            // Issued near its end: our clock or the authority's is wrong. It serves, but asking at its pace would be a spin.
            self.backoff.failed(&mut self.jitter)
        } else {
            self.backoff.succeeded();
            let (from, until) = self.renewal.window(life);
            self.jitter.between(from, until).max(backoff::MIN_DELAY)
        };
        self.current = Some(RenewalTimes {
            not_after,
            due_unix: now.unix.saturating_add(i64::try_from(wait.as_secs()).unwrap_or(i64::MAX)).saturating_add(1),
            due_monotonic: now.monotonic.saturating_add(wait),
        });
        self.retry = None;
        self.not_before = now.monotonic.saturating_add(backoff::MIN_DELAY);
    }

    /// There was no new certificate; returns how long until the next attempt.
    pub fn failed(&mut self, now: Now, kind: FailureKind) -> Duration {
        let mut wait = self.backoff.failed(&mut self.jitter);
        match kind {
            FailureKind::Local => wait = wait.min(backoff::MAX_LOCAL_DELAY),
            FailureKind::Remote { retry_after } => {
                wait = wait.max(retry_after.unwrap_or_default().min(backoff::MAX_DELAY))
            }
        }
        if let Some(left) = self.left(now) {
            // Twice more at least before it ends, while there is time for that.
            wait = wait.min((left / 2).max(backoff::MIN_DELAY));
        }
        self.retry = Some(now.monotonic.saturating_add(wait));
        self.not_before = now.monotonic.saturating_add(backoff::MIN_DELAY);
        wait
    }

    /// The remaining lifetime of a certificate that has not expired.
    fn left(&self, now: Now) -> Option<Duration> {
        let left = self.current?.not_after.saturating_sub(now.unix);
        u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_secs)
    }

    /// The bundles were asked for: the hint when to do that again, or `None` if this authority does not hand them out.
    pub fn polled(&mut self, now: Now, hint: Option<Duration>) {
        self.poll_backoff.succeeded();
        self.poll = hint.map(|hint| {
            let hint = if hint.is_zero() { POLL_INTERVAL } else { hint.clamp(MIN_POLL_INTERVAL, MAX_POLL_INTERVAL) };
            now.monotonic.saturating_add(self.jitter.about(hint))
        });
    }

    /// The poll for bundles failed.
    pub fn poll_failed(&mut self, now: Now) {
        let wait = self.poll_backoff.failed(&mut self.jitter);
        self.poll = Some(now.monotonic.saturating_add(wait));
    }

    /// A renewal was requested explicitly: the next attempt is due now.
    pub fn retry_now(&mut self, now: Now) {
        self.retry = Some(now.monotonic);
    }

    /// Attempts in a row that brought no certificate.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.backoff.failures()
    }
}

#[cfg(test)]
mod tests;
