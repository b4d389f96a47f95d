//! Scalars and what type an unquoted one would have.

/// How a scalar is written.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Style {
    /// Without quotes: the text decides the type.
    Plain,
    /// In single or double quotes: always a string.
    Quoted,
    /// A `|` or `>` block: always a string.
    Block,
}

/// The type of a scalar.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ScalarKind {
    /// Nothing, `~` or `null`.
    Null,
    /// `true`, `false`, `yes`, `no`, `on` or `off`.
    Bool,
    /// A whole number in any notation.
    Int,
    /// A number with a point or an exponent, infinity, or not-a-number.
    Float,
    /// Everything else. Timestamps are strings.
    String,
}

/// A scalar with its style.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scalar {
    /// The text, with quotes and escapes undone. Empty for a value that is not written at all.
    pub text: String,
    /// How it is written.
    pub style: Style,
}

impl Scalar {
    /// The type by the rules of YAML 1.1, which the tools that read the same files follow.
    ///
    /// Where readers of YAML disagree whether a plain text is a number (`1e3`, `0o17`, `0891`), it is one here: the text
    /// is then refused where a string belongs, and quoting it makes it mean the same to every reader.
    #[must_use]
    pub fn kind(&self) -> ScalarKind {
        if self.style == Style::Plain { plain_kind(&self.text) } else { ScalarKind::String }
    }

    /// Whether there is no value at all: neither `~` nor `null` nor quotes, just nothing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.style == Style::Plain && self.text.is_empty()
    }
}

fn plain_kind(text: &str) -> ScalarKind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" | "yes" | "Yes" | "YES" | "no" | "No" | "NO" | "on"
        | "On" | "ON" | "off" | "Off" | "OFF" => ScalarKind::Bool,
        _ if is_int(text) => ScalarKind::Int,
        _ if is_float(text) => ScalarKind::Float,
        _ => ScalarKind::String,
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['+', '-']).unwrap_or(text)
}

/// Not empty, begins with a digit of the base, and holds only such digits and `_`.
fn digits(text: &str, radix: u32) -> bool {
    text.starts_with(|first: char| first.is_digit(radix)) && text.chars().all(|c| c.is_digit(radix) || c == '_')
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    for (prefix, radix) in [("0b", 2), ("0o", 8), ("0x", 16), ("0X", 16)] {
        if let Some(rest) = text.strip_prefix(prefix) {
            return digits(rest, radix);
        }
    }
    digits(text, 10) || is_sexagesimal(text, false)
}

/// `12:30:45`, which YAML 1.1 reads as a number to the base of 60; `12:30:45.5` with a fraction.
fn is_sexagesimal(text: &str, fraction: bool) -> bool {
    let text = if fraction {
        let Some((whole, rest)) = text.split_once('.') else { return false };
        if !rest.chars().all(|c| c.is_ascii_digit() || c == '_') {
            return false;
        }
        whole
    } else {
        text
    };
    let mut parts = text.split(':');
    parts.next().is_some_and(|first| digits(first, 10))
        && text.contains(':')
        && parts.all(|part| matches!(part.len(), 1 | 2) && digits(part, 10) && part.parse().is_ok_and(|n: u8| n < 60))
}

fn is_float(text: &str) -> bool {
    let text = unsigned(text);
    if matches!(text, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if is_sexagesimal(text, true) {
        return true;
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent_fits = exponent.is_none_or(|exponent| digits(unsigned(exponent), 10));
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction, 10),
        Some((whole, fraction)) => digits(whole, 10) && fraction.chars().all(|c| c.is_ascii_digit() || c == '_'),
        None => exponent.is_some() && digits(mantissa, 10),
    };
    mantissa_fits && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::{Scalar, ScalarKind, Style};

    fn kind(text: &str, style: Style) -> ScalarKind {
        Scalar { text: text.to_owned(), style }.kind()
    }

    #[test]
    fn plain_text_has_the_type_of_yaml_1_1() {
        let table = [
            (ScalarKind::Null, &["", "~", "null", "Null", "NULL"][..]),
            (ScalarKind::Bool, &["true", "False", "YES", "no", "on", "OFF", "off"]),
            (
                ScalarKind::Int,
                &["0", "-0", "+7", "8080", "1_000", "0x1F", "0X1f", "0b101", "0o17", "017", "0891", "190:20:30"],
            ),
            (
                ScalarKind::Float,
                &[
                    "1.5",
                    "-1.",
                    ".5",
                    "1e3",
                    "1E+3",
                    "1.5e-3",
                    "6e23",
                    ".inf",
                    "-.INF",
                    ".nan",
                    "190:20:30.15",
                    "12e4567",
                ],
            ),
            (
                ScalarKind::String,
                &[
                    "STRICT",
                    "nUll",
                    "tRUE",
                    "y",
                    "n",
                    "_1",
                    "0x",
                    "0b2",
                    "0o8",
                    "1.2.3",
                    ".",
                    "-",
                    "+",
                    "1e",
                    "e3",
                    "1.5e",
                    "2001-01-01",
                    "2001-12-14t21:59:43.10-05:00",
                    "2026-01-01T00:00:00Z",
                    "127.0.0.1:8080",
                    "1:60",
                    "1:123",
                    ":30",
                    "http",
                    "10s",
                    "0xZZ",
                    "٣",
                ],
            ),
        ];
        for (expected, texts) in table {
            for text in texts {
                assert_eq!(kind(text, Style::Plain), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn quotes_and_blocks_make_strings() {
        for text in ["", "null", "true", "8080", "1.5"] {
            assert_eq!(kind(text, Style::Quoted), ScalarKind::String, "{text:?}");
            assert_eq!(kind(text, Style::Block), ScalarKind::String, "{text:?}");
        }
    }
}
