//! Builds YAML values, and writes them so that every version of Compose reads the same.
//!
//! docker-compose reads YAML 1.1, Compose v2 a mixture of 1.1 and 1.2: `22:22` and `on` are a number and a boolean to one and
//! strings to the other. This writer quotes every string that is ambiguous, which a general YAML writer does not do.

use std::fmt::Write as _;

use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

/// A mapping in the given order.
pub(crate) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Mapping(entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect())
}

/// A list of strings.
pub(crate) fn list<T: Into<String>>(items: impl IntoIterator<Item = T>) -> Value {
    Value::Sequence(items.into_iter().map(|item| Value::String(item.into())).collect())
}

/// A string or a number as it is written; compose accepts either for many keys.
pub(crate) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A tag that only this writer knows: it writes the value in one line.
const IN_LINE: &str = "portcullis-in-line";
/// What the tags of an anchor and of an alias begin with; a name follows.
const ANCHOR: char = '&';
const ALIAS: char = '*';

/// The value in one line, if it is short enough for that.
pub(crate) fn in_line(value: Value) -> Value {
    const WIDTH: usize = 130;
    let is_collection = match &value {
        Value::Mapping(entries) => !entries.is_empty(),
        Value::Sequence(items) => !items.is_empty(),
        _ => false,
    };
    let mut text = String::new();
    flow(&mut text, &value);
    if is_collection && text.len() <= WIDTH { tagged(IN_LINE.to_owned(), value) } else { value }
}

/// The value, which [`alias`] can stand for from then on.
pub(crate) fn anchor(name: &str, value: Value) -> Value {
    tagged(format!("{ANCHOR}{name}"), value)
}

/// The value of an anchor.
pub(crate) fn alias(name: &str) -> Value {
    tagged(format!("{ALIAS}{name}"), Value::Null)
}

fn tagged(tag: String, value: Value) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value }))
}

/// The whole document.
pub(crate) fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Mapping(entries) if !entries.is_empty() => mapping(&mut out, entries, 0),
        Value::Sequence(items) if !items.is_empty() => sequence(&mut out, items, 0),
        other => {
            inline(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(out: &mut String, entries: &Mapping, depth: usize) {
    for (key, value) in entries {
        indent(out, depth);
        entry(out, key, value, depth);
    }
}

fn entry(out: &mut String, key: &Value, value: &Value, depth: usize) {
    if key.as_str() == Some("<<") {
        // In quotes it would be a key like any other.
        out.push_str("<<");
    } else {
        inline(out, key, depth);
    }
    out.push(':');
    nested(out, value, depth);
}

/// The value of a key: on the same line, or in a block below it.
fn nested(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Mapping(entries) if !entries.is_empty() => {
            out.push('\n');
            mapping(out, entries, depth + 1);
        }
        Value::Sequence(items) if !items.is_empty() => {
            out.push('\n');
            sequence(out, items, depth + 1);
        }
        Value::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            match tag.trim_start_matches('!') {
                IN_LINE => {
                    out.push(' ');
                    flow(out, &tagged.value);
                    out.push('\n');
                }
                name if name.starts_with(ALIAS) => {
                    let _infallible = writeln!(out, " {name}");
                }
                name if name.starts_with(ANCHOR) => {
                    let _infallible = write!(out, " {name}");
                    nested(out, &tagged.value, depth);
                }
                _ => {
                    let _infallible = write!(out, " {tag}");
                    nested(out, &tagged.value, depth);
                }
            }
        }
        other => {
            out.push(' ');
            inline(out, other, depth);
            out.push('\n');
        }
    }
}

fn sequence(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        indent(out, depth);
        out.push('-');
        match item {
            // The first entry beside the dash, the others below it.
            Value::Mapping(entries) if !entries.is_empty() => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index == 0 {
                        out.push(' ');
                    } else {
                        indent(out, depth + 1);
                    }
                    entry(out, key, value, depth + 1);
                }
            }
            other => nested(out, other, depth),
        }
    }
}

/// In one line. A colon would need a space after it to be one, but not every reader of version 1.1 knows that.
fn flow(out: &mut String, value: &Value) {
    match value {
        Value::String(text) if is_plain(text) && !text.contains(':') => out.push_str(text),
        Value::String(text) => quoted(out, text),
        Value::Sequence(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                flow(out, item);
            }
            out.push(']');
        }
        Value::Mapping(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                flow(out, key);
                out.push_str(": ");
                flow(out, value);
            }
            out.push('}');
        }
        other => inline(out, other, 0),
    }
}

fn inline(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => {
            let _infallible = write!(out, "{number}");
        }
        Value::String(text) if is_plain(text) => out.push_str(text),
        Value::String(text) if is_block(text) => {
            out.push('|');
            for line in text.lines() {
                out.push('\n');
                if !line.is_empty() {
                    indent(out, depth + 1);
                    out.push_str(line);
                }
            }
        }
        Value::String(text) => quoted(out, text),
        // A collection that is a key, or empty. Compose has no such key and reports it when it reads the file.
        Value::Sequence(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                inline(out, item, depth);
            }
            out.push(']');
        }
        Value::Mapping(entries) => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                inline(out, key, depth);
                out.push_str(": ");
                inline(out, value, depth);
            }
            out.push('}');
        }
        Value::Tagged(tagged) => {
            let _infallible = write!(out, "{} ", tagged.tag);
            inline(out, &tagged.value, depth);
        }
    }
}

/// Whether every version of Compose reads it as this string without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let start = text.strip_prefix("./").unwrap_or(text);
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-:".contains(&byte);
    start.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || b"/_".contains(&first))
        && text.bytes().all(inner)
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Whether it can be a block: several lines, the last one terminated and the first not indented.
fn is_block(text: &str) -> bool {
    let visible = |character: char| character == '\n' || matches!(character, ' '..='~');
    text.ends_with('\n')
        && !text.ends_with("\n\n")
        && text.lines().count() > 1
        && !text.starts_with([' ', '\n'])
        && text.chars().all(visible)
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(character));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_and_lines_read_back_as_what_they_stand_for() {
        let ports: Value = serde_yaml::from_str(r#"{a: ["80:80", "on", x], b: {c: "~", d: 1}}"#).unwrap();
        let text = Value::from("one\ntwo\n");
        let service = map([("<<", alias("part")), ("config", alias("text")), ("ports", in_line(ports.clone()))]);
        let top =
            [("x-part", anchor("part", map([("k", Value::from(true))]))), ("x-text", anchor("text", text.clone()))];
        let written = write(&map([top[0].clone(), top[1].clone(), ("service", service)]));
        let mut read: Value = serde_yaml::from_str(&written).unwrap();
        read.apply_merge().unwrap();
        let service = read.get("service").unwrap();
        assert_eq!(service.get("k"), Some(&Value::from(true)), "{written}");
        assert_eq!((service.get("config"), service.get("ports")), (Some(&text), Some(&ports)), "{written}");
        assert!(written.contains("  ports: {a: [\"80:80\", \"on\", x], b: {c: \"~\", d: 1}}\n"), "{written}");
        let long = list(vec!["a-long-word"; 20]);
        assert_eq!(in_line(long.clone()), long);
    }

    #[test]
    fn a_written_document_reads_back_unchanged() {
        let text = r#"
a: [x, 1, 1.5, true, null, "true", "22:22", "0440", on, "", "~", "a: b", "a #b", "- x", "\e\u2028é", "${X:-y}"]
"yes": {b: {}, c: [], d: [[1, [2]], {e: f, g: [h]}, [{i: j}]]}
tag: !reset null
tags: !override {k: [l]}
block: "one\n  two\n\nthree\n"
folded: "  one\ntwo\n\n"
list: [!reset [1], "several\nlines\n"]
1: number
"#;
        let value: Value = serde_yaml::from_str(text).unwrap();
        let written = write(&value);
        assert_eq!(serde_yaml::from_str::<Value>(&written).unwrap(), value, "{written}");
        for needle in ["\"22:22\"", "\"on\"", "\"0440\"", "tag: !reset null", "block: |\n  one\n    two\n\n  three\n"] {
            assert!(written.contains(needle), "{needle} in {written}");
        }
    }
}
