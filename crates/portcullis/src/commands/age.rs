//! Ages and times left, as kubectl writes them: the two largest units, or one.

/// `45s`, `12m`, `3h5m`, `6d21h`, `45d`.
pub(crate) fn short(seconds: f64) -> String {
    // Ages of others may be anything; a float becomes the nearest integer.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and below 0 is 0")]
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let with = |large: u64, unit: &str, small: u64, small_unit: &str| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{small_unit}") }
    };
    match () {
        () if days >= 8 => format!("{days}d"),
        () if days > 0 => with(days, "d", hours, "h"),
        () if hours > 0 => with(hours, "h", minutes, "m"),
        () if minutes > 0 => with(minutes, "m", seconds % 60, "s"),
        () => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

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
}
