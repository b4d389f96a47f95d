//! Writes HTML in which only literals of this crate are markup.

use std::fmt::{self, Write as _};

/// The longest text that is shown of a name or a message. More is cut, with an ellipsis.
const MAX_TEXT_CHARS: usize = 160;
/// The same of a remedy, whose last words may be the command.
const MAX_REMEDY_CHARS: usize = 480;

/// HTML that is being written.
#[derive(Debug, Default)]
pub(crate) struct Html(String);

impl Html {
    /// Markup. Only literals can be: what comes from outside goes through [`Html::text`].
    pub(crate) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text in an element or a quoted attribute, whatever is in it.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.cut(text, MAX_TEXT_CHARS)
    }

    /// The same for what to do.
    pub(crate) fn remedy(&mut self, text: &str) -> &mut Self {
        self.cut(text, MAX_REMEDY_CHARS)
    }

    fn cut(&mut self, text: &str, most: usize) -> &mut Self {
        for (count, c) in text.chars().enumerate() {
            if count == most {
                self.0.push('…');
                break;
            }
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Also characters that turn the direction of writing, which would let one name look like another.
                c if c.is_control() || is_format(c) => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A number.
    pub(crate) fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        // Writing to a string does not fail.
        let _infallible = write!(self.0, "{}", number.into());
        self
    }

    /// Something that displays as letters, digits and punctuation without meaning in HTML; anything else is escaped.
    pub(crate) fn show(&mut self, value: impl fmt::Display) -> &mut Self {
        self.text(&value.to_string())
    }

    /// What was written apart.
    pub(crate) fn append(&mut self, other: &Self) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

/// Invisible characters that change how text around them is shown.
const fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> String {
        let mut html = Html::default();
        html.text(text);
        html.into_string()
    }

    #[test]
    fn markup_in_a_name_is_text() {
        assert_eq!(
            text(r#"<script>"a" & 'b'</script>"#),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
        assert_eq!(text("a\u{202e}b\u{7}\n"), "a\u{fffd}b\u{fffd}\u{fffd}");
        assert_eq!(text(&"x".repeat(300)).chars().count(), MAX_TEXT_CHARS + 1);
    }

    proptest! {
        #[test]
        fn no_text_opens_an_element_or_ends_an_attribute(any in ".*") {
            let shown = text(&any);
            prop_assert!(!shown.contains(['<', '>', '"', '\'']));
            prop_assert!(shown.len() <= 6 * (MAX_TEXT_CHARS + 1));
        }
    }
}
