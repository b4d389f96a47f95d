//! Ages and times left: the two largest units, or one; and as kubectl writes them in its columns.

/// `45s`, `12m`, `3h5m`, `6d21h`, `45d`.
pub(crate) fn short(seconds: f64) -> String {
    // Ages of others may be anything; a float becomes the nearest integer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and below 0 is 0")]
    let seconds = seconds as u64;
    portcullis_report::length(seconds)
}

/// As kubectl shortens a duration.
pub(crate) fn kubectl(seconds: i64) -> String {
    let Ok(total) = u64::try_from(seconds) else { return "<invalid>".to_owned() };
    let (minutes, hours, days) = (total / 60, total / 3600, total / 86_400);
    let with = |whole: u64, unit: &str, rest: u64, smaller: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{smaller}") }
    };
    match (total, hours, days) {
        (..120, ..) => format!("{total}s"),
        (..600, ..) => with(minutes, "m", total % 60, "s"),
        (_, ..3, _) => format!("{minutes}m"),
        (_, ..8, _) => with(hours, "h", minutes % 60, "m"),
        (_, ..48, _) => format!("{hours}h"),
        (.., ..8) => with(days, "d", hours % 24, "h"),
        (.., ..730) => format!("{days}d"),
        (.., ..2920) => with(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::{kubectl, short};

    #[test]
    fn an_age_has_its_two_largest_units() {
        let cases = [
            (0.9, "0s"),
            (59.0, "59s"),
            (60.0, "1m"),
            (725.0, "12m5s"),
            (3_600.0, "1h"),
            (11_100.0, "3h5m"),
            (593_999.0, "6d20h"),
            (3_888_000.0, "45d"),
            (-1.0, "0s"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(seconds), text);
        }
    }

    #[test]
    fn an_age_is_that_of_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (10_500, "175m"),
            (19_800, "5h30m"),
            (172_000, "47h"),
            (216_000, "2d12h"),
            (31_535_999, "364d"),
            (-1, "<invalid>"),
        ] {
            assert_eq!(kubectl(seconds), text);
        }
    }
}
