//! Walking a tree while collecting every problem.
//!
//! A [`Cursor`] is a node together with its path. Its accessors return `None` and report a problem when the node is not
//! what the caller asks for. So the caller goes on with the next field, and all mistakes of a file are reported at once.

use crate::problem::{Position, Problem, Problems, reason};
use crate::scalar::{Scalar, ScalarKind};
use crate::suggest::nearest;
use crate::tree::{Content, Document, Key, Mapping, Node};

/// A node and the path that led to it, e.g. `spec.portLevelMtls[8080].mode` or `ports[0].listen`.
#[derive(Clone, Debug)]
pub struct Cursor<'t> {
    node: &'t Node,
    field: String,
}

impl<'t> Cursor<'t> {
    /// At the top of a document, with an empty path.
    #[must_use]
    pub const fn root(document: &'t Document) -> Self {
        Self { node: &document.root, field: String::new() }
    }

    /// The same node as the root of a document of its own: an item of a `List` is reported as if it stood alone.
    #[must_use]
    pub fn as_root(&self) -> Self {
        Self { node: self.node, field: String::new() }
    }

    /// Where the node begins.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.node.position
    }

    /// The path.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The node.
    #[must_use]
    pub const fn node(&self) -> &'t Node {
        self.node
    }

    /// Whether there is no value: nothing is written, not even `~`.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(&self.node.content, Content::Scalar(scalar) if scalar.is_absent())
    }

    /// Whether the value is null: nothing, `~` or `null`, without quotes.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(&self.node.content, Content::Scalar(scalar) if scalar.kind() == ScalarKind::Null)
    }

    /// Reports a problem at this node.
    pub fn report(&self, reason: &'static str, message: impl Into<String>, problems: &mut Problems) {
        problems.push(Problem {
            position: self.node.position,
            field: self.field.clone(),
            reason,
            message: message.into(),
        });
    }

    fn expected(&self, what: &str, problems: &mut Problems) {
        let message = match &self.node.content {
            // It was reported already.
            Content::Refused => return,
            Content::Sequence(_) => format!("expected {what}, found a list"),
            Content::Mapping(_) => format!("expected {what}, found a mapping"),
            Content::Scalar(scalar) => format!("expected {what}, found {}", describe(scalar)),
        };
        self.report(reason::WRONG_TYPE, message, problems);
    }

    fn mapping(&self, problems: &mut Problems) -> Option<&'t Mapping> {
        if let Content::Mapping(mapping) = &self.node.content {
            return Some(mapping);
        }
        self.expected("a mapping", problems);
        None
    }

    fn member(&self, name: &str, node: &'t Node) -> Self {
        let field = if self.field.is_empty() { name.to_owned() } else { format!("{}.{name}", self.field) };
        Self { node, field }
    }

    fn keyed(&self, key: &str, node: &'t Node) -> Self {
        Self { node, field: format!("{}[{}]", self.field, printable(key)) }
    }

    /// The fields of a mapping whose possible keys are known. Each key that is not among `known` is reported as
    /// `unknown-field`, with the nearest known name if it looks like a slip; no mapping at all is `wrong-type`.
    pub fn fields(&self, known: &[&str], problems: &mut Problems) -> Option<Fields<'t>> {
        let mapping = self.mapping(problems)?;
        for entry in &mapping.entries {
            let name = entry.key.text();
            // Looking for near names takes time, and more problems are not kept.
            if known.contains(&name) || problems.is_full() {
                continue;
            }
            let hint = match nearest(name, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None if known.is_empty() => "no field is known here".to_owned(),
                None => format!("known here: {}", known.join(", ")),
            };
            let name = printable(name);
            problems.push(Problem {
                position: entry.key.position,
                field: self.member(&name, &entry.value).field,
                reason: reason::UNKNOWN_FIELD,
                message: format!("unknown field \"{name}\"; {hint}"),
            });
        }
        Some(Fields { at: self.clone(), mapping })
    }

    /// A field of a mapping, without a check of the others. For kinds that are only recognised.
    #[must_use]
    pub fn peek(&self, name: &str) -> Option<Self> {
        let Content::Mapping(mapping) = &self.node.content else { return None };
        mapping.get(name).map(|entry| self.member(name, &entry.value))
    }

    /// The entries of a mapping with free keys, whose paths are written `path[key]`.
    pub fn entries(&self, problems: &mut Problems) -> Option<Vec<(&'t Key, Self)>> {
        let mapping = self.mapping(problems)?;
        Some(mapping.entries.iter().map(|entry| (&entry.key, self.keyed(entry.key.text(), &entry.value))).collect())
    }

    /// The items of a list, whose paths are written `path[0]`.
    pub fn items(&self, problems: &mut Problems) -> Option<Vec<Self>> {
        let Content::Sequence(items) = &self.node.content else {
            self.expected("a list", problems);
            return None;
        };
        let item = |(index, node)| Self { node, field: format!("{}[{index}]", self.field) };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A string. What other readers of YAML may take for null, a boolean or a number is refused unless it is quoted.
    pub fn string(&self, problems: &mut Problems) -> Option<&'t str> {
        match &self.node.content {
            Content::Scalar(scalar) if scalar.kind() == ScalarKind::String => Some(&scalar.text),
            Content::Scalar(scalar) if !scalar.is_absent() && scalar.kind() != ScalarKind::Null => {
                let text = printable(&scalar.text);
                let message = format!("expected a string, found {}; quote it: \"{text}\"", describe(scalar));
                self.report(reason::WRONG_TYPE, message, problems);
                None
            }
            _ => {
                self.expected("a string", problems);
                None
            }
        }
    }

    /// `true` or `false`. The other booleans of YAML 1.1 are refused: not every reader takes them for one.
    pub fn boolean(&self, problems: &mut Problems) -> Option<bool> {
        if let Content::Scalar(scalar) = &self.node.content
            && scalar.kind() == ScalarKind::Bool
        {
            match scalar.text.as_str() {
                "true" | "True" | "TRUE" => return Some(true),
                "false" | "False" | "FALSE" => return Some(false),
                _ => {}
            }
        }
        self.expected("true or false", problems);
        None
    }

    /// A whole number in decimal digits, without quotes, from `min` to `max`.
    ///
    /// Another notation is `wrong-type`, a number outside is `out-of-range`.
    pub fn integer(&self, min: i64, max: i64, problems: &mut Problems) -> Option<i64> {
        let Content::Scalar(scalar) = &self.node.content else {
            self.expected("a whole number", problems);
            return None;
        };
        let digits = scalar.text.strip_prefix('-').unwrap_or(&scalar.text);
        let canonical = scalar.kind() == ScalarKind::Int
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        if !canonical {
            self.expected("a whole number in decimal digits, without quotes", problems);
            return None;
        }
        // Digits that do not fit in 64 bits are out of any range.
        let number = scalar.text.parse::<i64>().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            let message = format!("{} is not between {min} and {max}", printable(&scalar.text));
            self.report(reason::OUT_OF_RANGE, message, problems);
        }
        number
    }
}

/// The fields of a mapping whose keys are known.
#[derive(Clone, Debug)]
pub struct Fields<'t> {
    at: Cursor<'t>,
    mapping: &'t Mapping,
}

impl<'t> Fields<'t> {
    /// The field of that name, if it is written, even if its value is null.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cursor<'t>> {
        self.mapping.get(name).map(|entry| self.at.member(name, &entry.value))
    }

    /// The field of that name; its absence is reported as `missing-field` at the position of the mapping.
    pub fn require(&self, name: &str, problems: &mut Problems) -> Option<Cursor<'t>> {
        self.require_as(name, reason::MISSING_FIELD, problems)
    }

    /// As [`Self::require`], with the caller's reason code.
    pub fn require_as(&self, name: &str, reason: &'static str, problems: &mut Problems) -> Option<Cursor<'t>> {
        let found = self.get(name);
        if found.is_none() {
            let field = self.at.member(name, self.at.node).field;
            let message = format!("\"{name}\" must be set");
            problems.push(Problem { position: self.at.position(), field, reason, message });
        }
        found
    }

    /// The position of the key of that name.
    #[must_use]
    pub fn key_position(&self, name: &str) -> Option<Position> {
        self.mapping.get(name).map(|entry| entry.key.position)
    }

    /// The mapping itself.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor<'t> {
        &self.at
    }
}

fn describe(scalar: &Scalar) -> String {
    let text = printable(&scalar.text);
    match scalar.kind() {
        ScalarKind::Null if scalar.is_absent() => "nothing".to_owned(),
        ScalarKind::Null => format!("null (`{text}`)"),
        ScalarKind::Bool => format!("the boolean `{text}`"),
        ScalarKind::Int | ScalarKind::Float => format!("the number `{text}`"),
        ScalarKind::String => format!("the string \"{text}\""),
    }
}

/// Text for a message: at most 80 characters, with control characters and those that reorder text escaped. A file's
/// content ends up on terminals and in logs, where it must not pass for anything else.
#[must_use]
pub fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    let mut printed = String::new();
    for c in text.chars().take(MAX_CHARS) {
        if c.is_control() || is_reordering(c) { printed.extend(c.escape_unicode()) } else { printed.push(c) }
    }
    if text.chars().nth(MAX_CHARS).is_some() {
        printed.push('…');
    }
    printed
}

/// Characters that make a terminal show text in another order than it has.
const fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
