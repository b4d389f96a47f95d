//! Puts nodes together and watches the keys of mappings.

use std::collections::HashMap;

use crate::cursor::printable;
use crate::problem::{Position, Problem, Problems, reason};
use crate::scalar::Style;
use crate::tree::{Content, Entry, Key, Mapping, Node};

/// The document that is being read.
#[derive(Debug)]
pub(super) struct Builder {
    open: Vec<Frame>,
    root: Option<Node>,
    /// The path of the last node that has an anchor.
    anchored: String,
}

/// A collection that has not ended yet.
#[derive(Debug)]
struct Frame {
    position: Position,
    kind: Collection,
}

#[derive(Debug)]
enum Collection {
    Sequence(Vec<Node>),
    Mapping { mapping: Mapping, seen: HashMap<String, Position>, pending: Pending },
}

/// What the next node of a mapping is.
#[derive(Debug)]
enum Pending {
    /// A key.
    Key,
    /// The value of this key.
    Value(Key),
    /// The value of a key that is refused; it is read and dropped. The key's text is kept for paths.
    Dropped(String),
}

impl Builder {
    pub(super) const fn new() -> Self {
        Self { open: Vec::new(), root: None, anchored: String::new() }
    }

    pub(super) const fn depth(&self) -> usize {
        self.open.len()
    }

    pub(super) fn open_sequence(&mut self, position: Position) {
        self.open.push(Frame { position, kind: Collection::Sequence(Vec::new()) });
    }

    pub(super) fn open_mapping(&mut self, position: Position) {
        let kind = Collection::Mapping { mapping: Mapping::default(), seen: HashMap::new(), pending: Pending::Key };
        self.open.push(Frame { position, kind });
    }

    pub(super) fn close(&mut self, problems: &mut Problems) {
        let Some(Frame { position, kind }) = self.open.pop() else { return };
        let content = match kind {
            Collection::Sequence(items) => Content::Sequence(items),
            Collection::Mapping { mapping, .. } => Content::Mapping(mapping),
        };
        self.add(Node { position, content }, problems);
    }

    /// Puts a whole node where the document stands: as root, item, key or value.
    pub(super) fn add(&mut self, node: Node, problems: &mut Problems) {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        let fault = match &mut frame.kind {
            Collection::Sequence(items) => {
                items.push(node);
                return;
            }
            Collection::Mapping { mapping, seen, pending } => match std::mem::replace(pending, Pending::Key) {
                Pending::Key => {
                    let (next, fault) = take_key(node, seen);
                    *pending = next;
                    fault
                }
                Pending::Value(key) => {
                    mapping.entries.push(Entry { key, value: node });
                    return;
                }
                Pending::Dropped(_) => return,
            },
        };
        // The path is made for a fault only: most nodes have none.
        if let Some(Fault { position, reason, message }) = fault {
            problems.push(Problem { position, field: self.path(), reason, message });
        }
    }

    /// The root, unless the document holds nothing.
    pub(super) fn finish(&mut self) -> Option<Node> {
        let root = self.root.take()?;
        let empty = matches!(&root.content, Content::Scalar(scalar) if scalar.is_absent());
        (!empty).then_some(root)
    }

    /// Reports something that YAML allows and this reader does not, at the path where the document stands.
    pub(super) fn refuse(&self, position: Position, message: String, problems: &mut Problems) {
        problems.push(Problem { position, field: self.path(), reason: reason::YAML_SYNTAX, message });
    }

    /// To be called for each node before it is added: the parser names its anchor only afterwards, when the path is
    /// another one already. The parser's id 0 means none.
    pub(super) fn note_anchor(&mut self, id: usize) {
        if id != 0 {
            self.anchored = self.path();
        }
    }

    /// As [`Self::refuse`], for the last node that was noted.
    pub(super) fn refuse_anchor(&self, position: Position, message: String, problems: &mut Problems) {
        problems.push(Problem { position, field: self.anchored.clone(), reason: reason::YAML_SYNTAX, message });
    }

    /// The path of the node that comes next. Whether keys are free is not known here, so a key that looks like the name
    /// of a field is written as one.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.open {
            match &frame.kind {
                Collection::Sequence(items) => path = format!("{path}[{}]", items.len()),
                Collection::Mapping { pending: Pending::Value(key), .. } => path = join(&path, key.text()),
                Collection::Mapping { pending: Pending::Dropped(key), .. } => path = join(&path, key),
                Collection::Mapping { pending: Pending::Key, .. } => {}
            }
        }
        path
    }
}

/// What is wrong with a key.
struct Fault {
    position: Position,
    reason: &'static str,
    message: String,
}

fn take_key(node: Node, seen: &mut HashMap<String, Position>) -> (Pending, Option<Fault>) {
    let position = node.position;
    let fault = |reason, message| Some(Fault { position, reason, message });
    let scalar = match node.content {
        Content::Scalar(scalar) => scalar,
        // An alias; reported already.
        Content::Refused => return (Pending::Dropped("?".to_owned()), None),
        Content::Sequence(_) | Content::Mapping(_) => {
            let message = "a key must be a single value, not a list or a mapping".to_owned();
            return (Pending::Dropped("?".to_owned()), fault(reason::YAML_SYNTAX, message));
        }
    };
    if scalar.text == "<<" && scalar.style == Style::Plain {
        let message = "merge keys (`<<`) are not allowed; write the fields out".to_owned();
        return (Pending::Dropped(scalar.text), fault(reason::YAML_SYNTAX, message));
    }
    if let Some(first) = seen.get(&scalar.text) {
        let text = printable(&scalar.text);
        let message = format!("the key \"{text}\" stands at {first} already; a key may stand once in a mapping");
        return (Pending::Dropped(scalar.text), fault(reason::DUPLICATE_KEY, message));
    }
    seen.insert(scalar.text.clone(), position);
    (Pending::Value(Key { position, scalar }), None)
}

fn join(path: &str, key: &str) -> String {
    let name = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match (name, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", printable(key)),
    }
}
