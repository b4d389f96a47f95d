//! The documents of a file, and the resources in them.

use std::ops::Range;

use portcullis_yaml::{Content, Node, Position, parse};
use serde_json::Value;

use crate::id::Id;
use crate::kind::ResourceKind;
use crate::value::value;

/// A resource of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// What it is called.
    pub id: Id,
    /// All of it.
    pub value: Value,
    /// The line on which it begins, from 1.
    pub line: u32,
    /// Where it stands.
    pub place: Place,
    /// The text of its document, with the comments in front of it; empty for an item of a list.
    pub text: String,
}

/// Where a resource stands in a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// It is the document with this number, from 0.
    Document(usize),
    /// It is an item of a list.
    Item,
}

/// The resources of a file, in order. What is no resource of a known kind, or cannot be read, is left out.
#[must_use]
pub fn read(text: &str) -> Vec<Object> {
    let pieces = pieces(text);
    let mut objects = Vec::new();
    for document in parse(text.as_bytes()).documents {
        let root = &document.root;
        if let Some(id) = id(root) {
            let offset = offset(text, root.position);
            let Some(index) = pieces.iter().position(|piece| piece.body.contains(&offset)) else { continue };
            let own = pieces.get(index).and_then(|piece| text.get(piece.body.clone())).unwrap_or_default();
            objects.push(Object {
                id,
                value: value(root),
                line: root.position.line,
                place: Place::Document(index),
                text: own.to_owned(),
            });
        } else if let Some(Content::Sequence(items)) = field(root, "items").map(|items| &items.content) {
            objects.extend(items.iter().filter_map(|item| {
                let (line, place) = (item.position.line, Place::Item);
                Some(Object { id: id(item)?, value: value(item), line, place, text: String::new() })
            }));
        }
    }
    objects
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.content {
        Content::Mapping(mapping) => mapping.get(name).map(|entry| &entry.value),
        _ => None,
    }
}

fn id(node: &Node) -> Option<Id> {
    let text = |node: Option<&Node>| match &node?.content {
        Content::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    };
    let kind = ResourceKind::of(&text(field(node, "kind"))?, &text(field(node, "apiVersion"))?)?;
    let metadata = field(node, "metadata")?;
    Some(Id { kind, namespace: text(field(metadata, "namespace"))?, name: text(field(metadata, "name"))? })
}

/// The byte at a position.
fn offset(text: &str, position: Position) -> usize {
    let lines = usize::try_from(position.line).unwrap_or(usize::MAX).saturating_sub(1);
    let line = line_starts(text).nth(lines).unwrap_or(text.len());
    let columns = usize::try_from(position.column).unwrap_or(usize::MAX).saturating_sub(1);
    let rest = text.get(line..).unwrap_or_default();
    line.saturating_add(rest.char_indices().nth(columns).map_or(rest.len(), |(at, _)| at))
}

fn line_starts(text: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at.saturating_add(1)))
}

/// A document's part of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    /// From its `---`, or the beginning of the file.
    pub(crate) start: usize,
    /// Behind the `---`, to the next one or the end of the file.
    pub(crate) body: Range<usize>,
}

impl Piece {
    /// From its first to its last line with content: without the comments and empty lines in front and behind.
    pub(crate) fn content(&self, text: &str) -> Range<usize> {
        let body = text.get(self.body.clone()).unwrap_or_default();
        let (mut first, mut last, mut at) = (None, 0, 0_usize);
        for line in body.split_inclusive('\n') {
            let end = at.saturating_add(line.len());
            let is_blank = line.trim().is_empty();
            // In front, any comment; behind, one at the margin: an indented `#` may be text of a block.
            let is_comment = if first.is_none() { line.trim_start().starts_with('#') } else { line.starts_with('#') };
            if !is_blank && !is_comment {
                first = first.or(Some(at));
                last = end;
            }
            at = end;
        }
        let start = self.body.start;
        match first {
            Some(first) => start.saturating_add(first)..start.saturating_add(last),
            None => self.body.end..self.body.end,
        }
    }
}

/// Cuts a file at `---` and `...`.
pub(crate) fn pieces(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut start, mut body) = (0, 0);
    let mut at: usize = 0;
    for line in text.split_inclusive('\n') {
        let next = at.saturating_add(line.len());
        let is = |marker: &str| {
            line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        if is("---") {
            pieces.push(Piece { start, body: body..at });
            (start, body) = (at, at.saturating_add(3));
        } else if is("...") {
            pieces.push(Piece { start, body: body..at });
            (start, body) = (at, next);
        }
        at = next;
    }
    pieces.push(Piece { start, body: body..at });
    pieces
}
