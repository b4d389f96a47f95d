//! The tree that a text becomes.

use crate::problem::Position;
use crate::scalar::Scalar;

/// One YAML document that was read to its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Document {
    /// The node at the top.
    pub root: Node,
}

/// A value with its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// Where it begins. For a block scalar this is its first line of content, for a block mapping its first key.
    pub position: Position,
    /// What it is.
    pub content: Content,
}

/// What a node holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys with values.
    Mapping(Mapping),
    /// Something that is refused, such as an alias. The problem is reported already, so nothing is to be said about it
    /// again.
    Refused,
}

/// The key of a mapping's entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    /// Where it begins.
    pub position: Position,
    /// Its text and style.
    pub scalar: Scalar,
}

impl Key {
    /// Its text, with quotes undone.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.scalar.text
    }
}

/// A key and its value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Node,
}

/// The entries of a mapping, in the order in which they are written. No key stands in it twice.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Mapping {
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Mapping {
    /// The entry with that key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.text() == key)
    }
}
