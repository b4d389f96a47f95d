//! Words for people: times, lists, and text that a stranger chose.

use std::fmt::Write as _;

use portcullis_api::Timestamp;

/// The most characters of a text that a stranger chose: the longest DNS name has 253.
const MOST: usize = 300;

/// Text that a stranger chose, without control characters and without those that reorder or hide what is beside them.
pub(crate) fn clean(text: &str) -> String {
    bounded(text, MOST)
}

/// As [`clean`], for what is longer by its nature: a SPIFFE ID, the path of a file.
pub(crate) fn clean_long(text: &str) -> String {
    bounded(text, 4096)
}

fn bounded(text: &str, most: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(most));
    for c in text.chars().take(most) {
        if c.is_control() || is_invisible(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    if text.chars().nth(most).is_some() {
        shown.push('…');
    }
    shown
}

/// Characters that a terminal or a browser does not show, or shows in another place.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// From this many seconds on, hours no longer matter to a reader.
const DAYS_ALONE: u64 = 8 * 86_400;

/// A length of time by its two largest units, such as `6d21h`; from eight days on in days alone, such as `45d`.
#[must_use]
pub fn length(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(largest) = UNITS.iter().position(|(size, _)| seconds >= *size) else { return "0s".to_owned() };
    let mut text = String::new();
    let mut left = seconds;
    let count_of_units = if seconds < DAYS_ALONE { 2 } else { 1 };
    for (size, unit) in UNITS.iter().skip(largest).take(count_of_units) {
        let count = left / size;
        if count > 0 {
            let _infallible = write!(text, "{count}{unit}");
        }
        left %= size;
    }
    text
}

/// How long ago, by the largest unit, such as `27h ago`.
#[must_use]
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.seconds_since(then);
    let (size, unit) = match seconds {
        0..60 => (1, "s"),
        60..3600 => (60, "m"),
        3600..172_800 => (3600, "h"),
        _ => (86_400, "d"),
    };
    format!("{}{unit} ago", seconds / size)
}

/// A share of connections, rounded so that neither 0% nor 100% is shown for what is not exactly that.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if part == whole {
        return "100%".to_owned();
    }
    if part == 0 {
        return "0%".to_owned();
    }
    // Below 1000 as part < whole.
    let tenths = (u128::from(part) * 1000 / u128::from(whole)).max(1);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// A number with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A list that is cut after `most` items, and says how many are not shown.
pub(crate) fn list<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let shown: Vec<&str> = items.iter().take(most).map(AsRef::as_ref).collect();
    let more = items.len().saturating_sub(most);
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_strangers_neither_controls_nor_hides() {
        assert_eq!(clean("cron\u{1b}[31m\r\nx\u{202e}y"), "cron\\u{1b}[31m\\u{d}\\u{a}x\\u{202e}y");
        assert_eq!(clean("größe-1.shop"), "größe-1.shop");
        assert_eq!(clean(&"a".repeat(1000)).chars().count(), MOST + 1);
    }

    #[test]
    fn lengths_have_two_units_and_ages_one() {
        let shown = [0, 59, 60, 3601, 594_000, 691_199, 691_200, 3_900_000].map(length);
        assert_eq!(shown, ["0s", "59s", "1m", "1h", "6d21h", "7d23h", "8d", "45d"]);
        let now = Timestamp::from_unix(1_000_000);
        let ages = [0, 90, 7200, 100_000, 600_000].map(|age| ago(Timestamp::from_unix(1_000_000 - age), now));
        assert_eq!(ages, ["0s ago", "1m ago", "2h ago", "27h ago", "6d ago"]);
        assert_eq!(ago(Timestamp::from_unix(2_000_000), now), "0s ago");
    }

    #[test]
    fn a_share_is_never_rounded_to_all_or_nothing() {
        let shown = [(0, 5), (5, 5), (1, 100_000), (99_999, 100_000), (981, 1000), (1, 2)].map(|(a, b)| percent(a, b));
        assert_eq!(shown, ["0%", "100%", "0.1%", "99.9%", "98.1%", "50.0%"]);
        assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9%");
    }

    #[test]
    fn a_list_says_what_it_leaves_out() {
        assert_eq!(list(&["a", "b", "c"], 2), "a, b and 1 more");
        assert_eq!(list(&["a", "b"], 2), "a, b");
        assert_eq!(count(1, "client") + ", " + &count(2, "client"), "1 client, 2 clients");
    }
}
