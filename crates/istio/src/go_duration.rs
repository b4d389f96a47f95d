//! Go's durations (`time.ParseDuration`), the form that Istio uses: `24h`, `1h30m`, `1.5h`.

use std::time::Duration;

/// Nanoseconds in each unit.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // U+00B5 and U+03BC: Go accepts both.
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration. `None` if Go would refuse it, or if it is negative, which no lifetime can be.
///
/// As in Go a number may have a fraction, units may come in any order and more than once, there is no day, and the longest
/// duration has 2^63 - 1 nanoseconds (some 292 years).
#[must_use]
pub fn go_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let (nanos, after) = part(rest)?;
        total = total.checked_add(nanos).filter(|total| i64::try_from(*total).is_ok())?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_nanos(total))
}

/// One number with its unit, and what comes after it.
fn part(text: &str) -> Option<(u64, &str)> {
    let (whole, after) = digits(text);
    let (fraction, after) = match after.strip_prefix('.') {
        Some(after) => digits(after),
        None => ("", after),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
    let (unit, rest) = after.split_at_checked(end)?;
    let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(scale)?;
    // Each further digit is worth a tenth of the one before. Fractions of a nanosecond are dropped, as in Go.
    let mut worth = u128::from(scale) * 1_000_000_000;
    let mut part = 0_u128;
    for digit in fraction.bytes() {
        worth /= 10;
        part += u128::from(digit - b'0') * worth;
    }
    nanos = nanos.checked_add(u64::try_from(part / 1_000_000_000).ok()?)?;
    Some((nanos, rest))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of Go's table in `time/time_test.go` that are not negative.
    #[test]
    fn durations_are_those_of_go() {
        let (ms, s, m, h) = (1_000_000, 1_000_000_000_u64, 60_000_000_000, 3_600_000_000_000);
        for (text, nanos) in [
            ("0", 0),
            ("5s", 5 * s),
            ("30s", 30 * s),
            ("1478s", 1478 * s),
            ("+5s", 5 * s),
            ("+0", 0),
            ("5.0s", 5 * s),
            ("5.6s", 5 * s + 600 * ms),
            ("5.s", 5 * s),
            (".5s", 500 * ms),
            ("1.004s", s + 4 * ms),
            ("1.0040s", s + 4 * ms),
            ("100.00100s", 100 * s + ms),
            ("10ns", 10),
            ("11us", 11_000),
            ("12µs", 12_000),
            ("12μs", 12_000),
            ("13ms", 13 * ms),
            ("14s", 14 * s),
            ("15m", 15 * m),
            ("16h", 16 * h),
            ("3h30m", 3 * h + 30 * m),
            ("10.5s4m", 4 * m + 10 * s + 500 * ms),
            ("1h2m3s4ms5us6ns", h + 2 * m + 3 * s + 4 * ms + 5_006),
            ("39h9m14.425s", 39 * h + 9 * m + 14 * s + 425 * ms),
            ("52763797000ns", 52_763_797_000),
            ("0.3333333333333333333h", 20 * m),
            ("9223372036854775807ns", i64::MAX.unsigned_abs()),
            ("9223372036s854ms775us807ns", i64::MAX.unsigned_abs()),
            ("0.100000000000000000000h", 6 * m),
            ("24h", 24 * h),
        ] {
            let read = go_duration(text).unwrap_or_else(|| panic!("{text}"));
            // Go computes long fractions in floating point; a nanosecond is no matter here.
            assert!(read.abs_diff(Duration::from_nanos(nanos)) <= Duration::from_nanos(1), "{text}: {read:?}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for text in [
            "",
            "3",
            "-",
            "s",
            ".",
            "-.",
            ".s",
            "+.s",
            "1d",
            "\u{85}\u{85}",
            "\u{ffff}",
            "hello \u{ffff} world",
            "24",
            "24 h",
            " 24h",
            "24H",
            "1h-30m",
            "-24h",
            "9223372036854775808ns",
            "9223372036854775.808us",
            "9223372036854ms775us808ns",
            "3000000h",
            "99999999999999999999h",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
