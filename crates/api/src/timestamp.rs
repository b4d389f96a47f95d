//! A moment in UTC, in whole seconds.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970 in UTC. In JSON an RFC 3339 string, `2026-11-30T09:00:00Z`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A day in seconds. UTC days have no leap seconds in this count.
    pub const SECONDS_A_DAY: i64 = 86_400;

    /// So many seconds after 1970-01-01T00:00:00Z. Times outside of the years 1 to 9999 become the nearest one.
    #[must_use]
    pub fn from_unix(seconds: i64) -> Self {
        // 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
        Self(seconds.clamp(-62_135_596_800, 253_402_300_799))
    }

    /// Seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// The number of the day since 1970-01-01, in UTC.
    #[must_use]
    pub const fn day(self) -> i64 {
        self.0.div_euclid(Self::SECONDS_A_DAY)
    }

    /// Seconds from `earlier` to this; 0 if it is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }

    /// Parses RFC 3339, and drops fractions of a second.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(|time| Self::from_unix(time.unix_timestamp()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = OffsetDateTime::from_unix_timestamp(self.0).map_err(|_| fmt::Error)?;
        f.write_str(&time.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a time in RFC 3339")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_rfc_3339_and_read_back() {
        let time = Timestamp::from_unix(1_796_000_000);
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-11-30T00:53:20Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>("\"2026-11-30T01:53:20.9+01:00\"").unwrap(), time);
        assert!(serde_json::from_str::<Timestamp>("\"yesterday\"").is_err());
    }

    #[test]
    fn every_time_that_exists_can_be_written() {
        for seconds in [i64::MIN, -1, 0, i64::MAX] {
            let time = Timestamp::from_unix(seconds);
            assert_eq!(Timestamp::parse(&time.to_string()), Some(time), "{seconds}");
        }
    }

    #[test]
    fn days_begin_at_midnight_also_before_1970() {
        assert_eq!([-1, 0, 86_399, 86_400].map(|seconds| Timestamp::from_unix(seconds).day()), [-1, 0, 0, 1]);
    }
}
