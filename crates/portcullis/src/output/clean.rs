//! Text of others on its way to a terminal: what moves the cursor, changes colours or reverses the line is shown as an escape.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Control characters, and the marks that change the direction or the lines of a text.
const fn is_unsafe(character: char) -> bool {
    matches!(
        character,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// One line: also its newlines are escaped.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    escape(text, is_unsafe, |character, clean| clean.extend(character.escape_default()))
}

/// Several lines, whose newlines stay.
pub(crate) fn clean_lines(text: &str) -> Cow<'_, str> {
    let keep = |character| is_unsafe(character) && character != '\n';
    escape(text, keep, |character, clean| clean.extend(character.escape_default()))
}

/// JSON that was written already. These characters occur in its strings only, except for its own newlines.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    let keep = |character| is_unsafe(character) && character != '\n';
    escape(text, keep, |character, clean| {
        let _infallible = write!(clean, "\\u{:04x}", u32::from(character));
    })
}

/// Whether nothing but newlines had to be escaped.
pub(super) fn is_clean(text: &str) -> bool {
    !text.chars().any(|character| is_unsafe(character) && character != '\n')
}

fn escape(text: &str, is_bad: impl Fn(char) -> bool, write: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if !text.chars().any(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len().saturating_add(16));
    for character in text.chars() {
        if is_bad(character) { write(character, &mut clean) } else { clean.push(character) }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(clean("cart\u{1b}[2J\u{9b}1m\r\n\u{202e}x"), "cart\\u{1b}[2J\\u{9b}1m\\r\\n\\u{202e}x");
        assert_eq!(clean_lines("one\ntwo\u{7}"), "one\ntwo\\u{7}");
        assert!(matches!(clean("Zürich → 東京"), Cow::Borrowed(_)));
    }

    #[test]
    fn json_says_the_same_after_cleaning() {
        let value = serde_json::json!({"a": "x\u{9b}\u{202e}\u{7f}\u{1b}\n"});
        let text = serde_json::to_string_pretty(&value).unwrap();
        let cleaned = json(&text);
        assert!(is_clean(&cleaned) && !is_clean(&text), "{cleaned:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&cleaned).unwrap(), value);
    }

    #[test]
    fn every_control_character_counts() {
        for character in ('\0'..='\u{ffff}').filter(|character| character.is_control()) {
            assert!(is_unsafe(character), "{character:?}");
        }
    }
}
