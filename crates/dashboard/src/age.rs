//! Spans of time in words.

use portcullis_api::Timestamp;

/// How long ago: `just now`, `40 s ago`, `5 min ago`, `3 h ago`, `2 d ago`.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    match now.seconds_since(then) {
        0..=4 => "just now".to_owned(),
        seconds => format!("{} ago", span(seconds)),
    }
}

/// Two digits or so, with a unit.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_the_unit_in_which_they_are_short() {
        assert_eq!(
            [0, 99, 100, 5_999, 6_000, 172_799, 172_800].map(span),
            ["0 s", "99 s", "1 min", "99 min", "1 h", "47 h", "2 d"]
        );
        let at = Timestamp::from_unix;
        // A clock that is ahead of ours is not in the future.
        assert_eq!([ago(at(100), at(200)), ago(at(200), at(100))], ["just now", "1 min ago"]);
    }
}
