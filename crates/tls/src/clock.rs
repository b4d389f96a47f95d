//! The one clock that certificates are judged by.
//!
//! rustls asks it in every handshake and the verification of our own files asks it too, so that a test can move the time
//! for both at once. Deadlines and timers don't belong here; they run on the monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Wall time in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Shared(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows whatever was last stored, in seconds since 1970.
    #[must_use]
    pub const fn shared(seconds: Arc<AtomicU64>) -> Self {
        Self(Source::Shared(seconds))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            Source::System => UnixTime::now(),
            Source::Shared(seconds) => {
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.load(Ordering::Acquire)))
            }
        }
    }

    /// The time now, as certificates count it.
    #[must_use]
    pub fn now_unix(&self) -> i64 {
        i64::try_from(self.now().as_secs()).unwrap_or(i64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}

/// A Unix time as people read it: `2026-11-24T14:28:56Z` (RFC 3339).
#[must_use]
pub fn utc(unix: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(unix).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("Unix time {unix}"))
}
