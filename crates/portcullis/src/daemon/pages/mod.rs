//! The pages of the admin address, each made when it is asked for, from what is in force at that moment.
//!
//! JSON in ztunnel's camelCase; keys are in alphabetical order, so that two dumps can be compared line by line. Nothing in
//! here reads a file, and keys are not in reach: what is shown is the configuration, the policies and public certificates.

pub(super) mod certs;
pub(super) mod config;
pub(super) mod connections;
pub(super) mod policies;
pub(super) mod process;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_tls::utc;
use serde::Serialize;

/// A page: pretty JSON and a newline.
pub(super) fn body(value: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()));
    text.push('\n');
    text
}

pub(super) fn system_time(at: SystemTime) -> String {
    utc(i64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX))
}

/// As protobuf writes a duration in JSON: seconds.
fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_have_one_form() {
        assert_eq!(system_time(UNIX_EPOCH + Duration::from_secs(1_700_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(duration(Duration::from_secs(20)), "20s");
        assert_eq!(duration(Duration::from_millis(250)), "0.25s");
        assert_eq!(body(&serde_json::json!({"b": 1, "a": []})), "{\n  \"a\": [],\n  \"b\": 1\n}\n");
    }
}
