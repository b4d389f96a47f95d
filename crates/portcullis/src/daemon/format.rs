//! The forms in which times leave the process: in pages and in metrics.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_api::Timestamp;
use portcullis_tls::utc;

/// When the process started, by the wall clock and the monotonic one.
#[derive(Clone, Copy)]
pub(super) struct StartTime {
    wall: SystemTime,
    monotonic: Instant,
}

impl StartTime {
    pub(super) fn now() -> Self {
        Self { wall: SystemTime::now(), monotonic: Instant::now() }
    }

    pub(super) const fn wall(self) -> SystemTime {
        self.wall
    }

    pub(super) fn uptime(self) -> Duration {
        self.monotonic.elapsed()
    }
}

/// A time in UTC, such as `2023-11-14T22:13:20Z`.
pub(super) fn system_time(at: SystemTime) -> String {
    utc(i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX))
}

/// The same time in an answer.
pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Timestamp::from_unix(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// A duration as protobuf writes it in JSON: seconds.
pub(super) fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// Seconds since 1970, for metrics.
pub(super) fn unix_seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_have_one_form() {
        assert_eq!(system_time(UNIX_EPOCH + Duration::from_secs(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(duration(Duration::from_secs(20)), "20s");
        assert_eq!(duration(Duration::from_millis(250)), "0.25s");
    }
}
