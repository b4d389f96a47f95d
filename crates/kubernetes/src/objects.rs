//! What is known of the cluster: the last good document of each object, and what is wrong with newer ones. No IO.
//!
//! An object that cannot be read leaves its last good document in force, and is reported. Nothing leaves the set unless the server says so:
//! by an event, or by a list that is complete.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use portcullis_manifest::ResourceKind;
use portcullis_policy::ParsedSource;
use serde::{Deserialize, Serialize};

use crate::object::Name;

/// The most objects, and bytes of their documents, that a set may have: as much as a folder of policies may.
pub(crate) const MAX_OBJECTS: usize = 100_000;
/// See [`MAX_OBJECTS`].
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;
/// The largest document, as for a file.
const MAX_DOCUMENT: usize = 1024 * 1024;

/// One list and watch: a kind in a namespace.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct WatchId {
    pub(crate) kind: ResourceKind,
    pub(crate) namespace: String,
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.kind.name(), self.namespace)
    }
}

/// An object.
#[derive(Clone, Debug, Default)]
struct Entry {
    good: Option<Good>,
    /// The newest document, if it is not the good one, and what is wrong with it.
    bad: Option<Bad>,
}

#[derive(Clone, Debug)]
struct Good {
    text: String,
    parsed: Arc<ParsedSource>,
}

#[derive(Clone, Debug)]
struct Bad {
    text: String,
    problem: String,
}

/// The objects of all watches.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    watches: BTreeMap<WatchId, BTreeMap<Name, Entry>>,
    /// Lists that are not complete yet.
    lists: BTreeMap<WatchId, Vec<Name>>,
}

/// A good document, as it is kept on disk.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Kept {
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) document: String,
}

impl Objects {
    /// A list begins. What was known stays until it is complete.
    pub(crate) fn begin_list(&mut self, watch: &WatchId) {
        self.lists.insert(watch.clone(), Vec::new());
    }

    /// An object of a list that has begun. Whether the set changes.
    pub(crate) fn listed(&mut self, watch: &WatchId, name: Name, text: String) -> bool {
        if let Some(list) = self.lists.get_mut(watch) {
            list.push(name.clone());
        }
        self.apply(watch, name, text)
    }

    /// The list is complete: what was not in it is gone. Whether the set changes.
    pub(crate) fn end_list(&mut self, watch: &WatchId) -> bool {
        let Some(mut listed) = self.lists.remove(watch) else { return false };
        listed.sort_unstable();
        let known = self.watches.entry(watch.clone()).or_default();
        let before = known.len();
        known.retain(|name, _| listed.binary_search(name).is_ok());
        known.len() != before
    }

    /// An object is new, or different. Whether the set or what is wrong with it changes.
    pub(crate) fn apply(&mut self, watch: &WatchId, name: Name, text: String) -> bool {
        let entry = self.watches.entry(watch.clone()).or_default().entry(name.clone()).or_default();
        if entry.bad.as_ref().is_some_and(|bad| bad.text == text) {
            return false;
        }
        if entry.good.as_ref().is_some_and(|good| good.text == text) {
            return entry.bad.take().is_some();
        }
        match read(watch.kind.name(), &name, &text) {
            Ok(parsed) => *entry = Entry { good: Some(Good { text, parsed: Arc::new(parsed) }), bad: None },
            Err(problem) => entry.bad = Some(Bad { text, problem }),
        }
        true
    }

    /// The object is gone. Whether the set changes.
    pub(crate) fn delete(&mut self, watch: &WatchId, name: &Name) -> bool {
        self.watches.get_mut(watch).is_some_and(|known| known.remove(name).is_some())
    }

    /// Takes what others know of this watch.
    pub(crate) fn take_over(&mut self, watch: &WatchId, from: &mut Self) {
        if let Some(known) = from.watches.remove(watch) {
            self.watches.insert(watch.clone(), known);
        }
    }

    /// Whether anything of this watch is in force.
    pub(crate) fn has_any(&self, watch: &WatchId) -> bool {
        self.watches.get(watch).is_some_and(|known| !known.is_empty())
    }

    /// The good documents, in an order that does not depend on the order of events.
    pub(crate) fn sources(&self) -> Vec<Arc<ParsedSource>> {
        self.good().map(|(_, _, good)| Arc::clone(&good.parsed)).collect()
    }

    /// What is wrong, one line for each object.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.entries().filter_map(|(_, _, entry)| entry.bad.as_ref()).map(|bad| bad.problem.clone()).collect()
    }

    /// Whether an object has never been good: nothing can be put in its place.
    pub(crate) fn has_unknown(&self) -> bool {
        self.entries().any(|(_, _, entry)| entry.good.is_none())
    }

    pub(crate) fn count(&self) -> usize {
        self.good().count()
    }

    /// What to say if the set is larger than it may be.
    pub(crate) fn too_large(&self) -> Option<String> {
        let (count, bytes) = self.good().fold((0_usize, 0_usize), |(count, bytes), (_, _, good)| {
            (count.saturating_add(1), bytes.saturating_add(good.text.len()))
        });
        (count > MAX_OBJECTS || bytes > MAX_BYTES)
            .then(|| format!("{count} objects of {bytes} bytes; at most {MAX_OBJECTS} of {MAX_BYTES} bytes are read"))
    }

    /// The good documents, for the copy on disk.
    pub(crate) fn keep(&self) -> Vec<Kept> {
        let kept = self.good().map(|(watch, name, good)| Kept {
            kind: watch.kind.name().to_owned(),
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            document: good.text.clone(),
        });
        kept.collect()
    }

    /// Takes what was kept, if all of it can be read and belongs to the watches.
    pub(crate) fn restore(watches: &[WatchId], kept: Vec<Kept>) -> Result<Self, String> {
        let mut objects = Self::default();
        for Kept { kind, namespace, name, document } in kept {
            let watch = watches.iter().find(|watch| watch.kind.name() == kind && watch.namespace == namespace);
            let watch = watch.ok_or_else(|| format!("{kind} {namespace}/{name} is not watched"))?;
            objects.apply(watch, Name { namespace, name }, document);
        }
        match objects.problems().first() {
            Some(problem) => Err(problem.clone()),
            None => Ok(objects),
        }
    }

    fn entries(&self) -> impl Iterator<Item = (&WatchId, &Name, &Entry)> {
        self.watches.iter().flat_map(|(watch, known)| known.iter().map(move |(name, entry)| (watch, name, entry)))
    }

    fn good(&self) -> impl Iterator<Item = (&WatchId, &Name, &Good)> {
        self.entries().filter_map(|(watch, name, entry)| entry.good.as_ref().map(|good| (watch, name, good)))
    }
}

/// Reads a document with the reader of files. It must be what its watch says: a document of another kind or name could replace
/// an object that somebody else may write.
fn read(kind: &str, name: &Name, text: &str) -> Result<ParsedSource, String> {
    let Name { namespace, name } = name;
    let source = format!("kubernetes:{kind}/{namespace}/{name}");
    if text.len() > MAX_DOCUMENT {
        return Err(format!("{source}: {} bytes; at most {MAX_DOCUMENT} are read", text.len()));
    }
    let parsed = ParsedSource::new(&source, text.as_bytes());
    if !parsed.errors().is_empty() {
        let lines: Vec<_> = parsed.errors().iter().map(ToString::to_string).collect();
        return Err(lines.join("; "));
    }
    let mut names = parsed.names();
    let is_it = names.next().is_some_and(|(_, of, is)| of == namespace && is == name) && names.next().is_none();
    drop(names);
    if is_it { Ok(parsed) } else { Err(format!("{source}: is not what its name says")) }
}

#[cfg(test)]
#[path = "objects_tests.rs"]
mod tests;
