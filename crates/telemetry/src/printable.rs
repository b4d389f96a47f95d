//! Text that a peer may have chosen, for terminals.

use std::borrow::Cow;

/// Escapes control characters and bidirectional marks in text that a peer may have chosen. The formats escape line breaks and
/// quotes themselves, but JSON leaves characters that only terminals interpret.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if acts(c) { printable.extend(c.escape_unicode()) } else { printable.push(c) }
    }
    Cow::Owned(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_not_touched() {
        assert!(matches!(printable("cart.shop: grün \"quoted\""), Cow::Borrowed(_)));
        assert_eq!(printable("a\tb"), "a\\u{9}b");
    }
}
