//! What an answer of a collector means. Pure: status, header and body in, result out.

use std::time::Duration;

use portcullis_rpc::otlp::ExportLogsServiceResponse;
use prost::Message as _;
use serde_json::Value;
use time::PrimitiveDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

/// The longest `Retry-After` that is honoured; a longer one is a mistake.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Of what a collector says, this much is shown.
const SHOWN: usize = 200;

const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// An answer that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After`.
    pub(crate) retry_after: Option<String>,
    /// `Content-Type`.
    pub(crate) content_type: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// What became of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ExportResult {
    /// It was taken, but for so many lines, and why.
    Taken { rejected: u64, why: String },
    /// Later it may be: after this pause, if one was named.
    Later { after: Option<Duration>, why: String },
    /// It never will be.
    Refused { why: String },
}

impl Answer {
    /// `now` is in Unix seconds.
    pub(crate) fn result(&self, now: i64) -> ExportResult {
        match self.status {
            200..=299 => {
                let (rejected, why) = self.partial();
                ExportResult::Taken { rejected, why }
            }
            429 | 502 | 503 | 504 => {
                let after = self.retry_after.as_deref().and_then(|text| pause(text, now));
                ExportResult::Later { after: after.map(|after| after.min(MAX_RETRY_AFTER)), why: self.why() }
            }
            _ => ExportResult::Refused { why: self.why() },
        }
    }

    fn is_json(&self) -> bool {
        self.content_type.as_deref().is_some_and(|kind| kind.trim_start().starts_with("application/json"))
    }

    /// A body that cannot be read says nothing of rejected lines.
    fn partial(&self) -> (u64, String) {
        if self.is_json() {
            let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
            let partial = |name: &str| value.get("partialSuccess")?.get(name);
            // A 64-bit number is a string in the JSON of protobuf.
            let number = |rejected: &Value| rejected.as_u64().or_else(|| rejected.as_str()?.parse().ok());
            let rejected = partial("rejectedLogRecords").and_then(number).unwrap_or(0);
            let message = partial("errorMessage").and_then(Value::as_str).unwrap_or_default();
            return (rejected, shown(message));
        }
        let decoded = ExportLogsServiceResponse::decode(self.body.as_slice()).unwrap_or_default();
        let partial = decoded.partial_success.unwrap_or_default();
        (u64::try_from(partial.rejected_log_records).unwrap_or(0), shown(&partial.error_message))
    }

    /// Status, and what the body says if it is text.
    fn why(&self) -> String {
        let text = std::str::from_utf8(&self.body).ok().map(shown).filter(|text| !text.is_empty());
        let readable = text.filter(|text| !text.contains(char::REPLACEMENT_CHARACTER));
        match readable {
            Some(text) => format!("HTTP {}: {text}", self.status),
            None => format!("HTTP {}", self.status),
        }
    }
}

/// The first line, without what a terminal would act on.
fn shown(text: &str) -> String {
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.lines().next().unwrap_or_default().chars().take(SHOWN).map(visible).collect()
}

/// Seconds, or a date.
fn pause(text: &str, now: i64) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = PrimitiveDateTime::parse(text.trim(), HTTP_DATE).ok()?.assume_utc().unix_timestamp();
    Some(Duration::from_secs(u64::try_from(until.saturating_sub(now)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use portcullis_rpc::otlp::ExportLogsPartialSuccess;

    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> ExportResult {
        Answer { status, retry_after: retry_after.map(str::to_owned), ..Answer::default() }.result(784_111_770)
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        for status in [429, 502, 503, 504] {
            assert_eq!(answer(status, None), ExportResult::Later { after: None, why: format!("HTTP {status}") });
        }
        for status in [301, 400, 401, 403, 404, 413, 415, 500, 501] {
            assert_eq!(answer(status, Some("1")), ExportResult::Refused { why: format!("HTTP {status}") });
        }
        for status in [200, 202] {
            assert_eq!(answer(status, None), ExportResult::Taken { rejected: 0, why: String::new() });
        }
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        for (text, expected) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("86400", Some(300)),
            ("soon", None),
            ("-1", None),
        ] {
            let ExportResult::Later { after, .. } = answer(503, Some(text)) else { panic!("{text}") };
            assert_eq!(after, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn a_partial_success_is_read_in_both_encodings() {
        let partial_success =
            Some(ExportLogsPartialSuccess { rejected_log_records: 3, error_message: "too old".into() });
        let protobuf = ExportLogsServiceResponse { partial_success }.encode_to_vec();
        let json = |rejected: &str| {
            format!("{{\"partialSuccess\":{{\"rejectedLogRecords\":{rejected},\"errorMessage\":\"too old\"}}}}")
                .into_bytes()
        };
        for (kind, body) in [
            ("application/x-protobuf", protobuf),
            ("application/json", json("3")),
            ("application/json; charset=utf-8", json("\"3\"")),
        ] {
            let answer = Answer { status: 200, content_type: Some(kind.to_owned()), body, ..Answer::default() };
            assert_eq!(answer.result(0), ExportResult::Taken { rejected: 3, why: "too old".to_owned() }, "{kind}");
        }
    }

    #[test]
    fn what_a_collector_says_cannot_break_a_line() {
        let body = "no\u{1b}[31m\nsecond line".as_bytes().to_vec();
        let answer = Answer { status: 400, body, ..Answer::default() };
        assert_eq!(answer.result(0), ExportResult::Refused { why: "HTTP 400".to_owned() });
        let answer = Answer { status: 400, body: b"no tenant\nsecond".to_vec(), ..Answer::default() };
        assert_eq!(answer.result(0), ExportResult::Refused { why: "HTTP 400: no tenant".to_owned() });
    }
}
