//! The clock for the validity of certificates.
//!
//! rustls uses it in every handshake, and so does the verification of our own files, so that a test can set the time of both
//! at once. Deadlines and timers do not use it; they run on the monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Wall time in seconds since 1970.
#[derive(Clone, Debug)]
pub struct Clock(TimeSource);

#[derive(Clone, Debug)]
enum TimeSource {
    System,
    Shared(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(TimeSource::System)
    }

    /// A clock that returns the value that was last stored, in seconds since 1970.
    #[must_use]
    pub const fn shared(seconds: Arc<AtomicU64>) -> Self {
        Self(TimeSource::Shared(seconds))
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        match &self.0 {
            TimeSource::System => UnixTime::now(),
            TimeSource::Shared(seconds) => {
                UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds.load(Ordering::Acquire)))
            }
        }
    }

    /// The time now, in Unix time.
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

/// Formats a Unix time: `2026-11-24T14:28:56Z` (RFC 3339).
#[must_use]
pub fn utc(unix: i64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(unix).ok();
    let text = time.and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_else(|| format!("Unix time {unix}"))
}
