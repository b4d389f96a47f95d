//! All files to one set: documents, lists, duplicates, and every error in one run.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use portcullis_yaml::{Cursor, Problem, Problems};

use crate::kind::{self, Kind};
use crate::resource::{self, Read};
use crate::{Diagnostic, PeerAuthentication, conflict};

/// One file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, for diagnostics.
    pub file: String,
    /// Its content.
    pub text: Vec<u8>,
}

/// Every PeerAuthentication of a mesh, in any order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicySet {
    policies: Vec<PeerAuthentication>,
}

/// What loading came to. With any error the set is not to be used.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The policies that are valid.
    pub set: PolicySet,
    /// How many documents there were, items of lists counted one by one.
    pub documents: usize,
    /// What is wrong, by file and position.
    pub errors: Vec<Diagnostic>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Diagnostic>,
}

impl PolicySet {
    /// Reads all files. The time it takes grows with their size, not faster.
    ///
    /// It never stops at an error: what is wrong in any file is in [`Loaded::errors`].
    #[must_use]
    pub fn load(sources: &[Source]) -> Loaded {
        let mut loaded = Loaded::default();
        let mut seen = HashMap::new();
        for source in sources {
            let (errors, warnings) = (loaded.errors.len(), loaded.warnings.len());
            File { name: &source.file, loaded: &mut loaded, seen: &mut seen }.read(&source.text);
            // By position within the file; files stay in the order in which they were given.
            for (all, start) in [(&mut loaded.errors, errors), (&mut loaded.warnings, warnings)] {
                if let Some(of_file) = all.get_mut(start..) {
                    of_file.sort_by_key(|found| (found.line, found.column));
                }
            }
        }
        loaded.warnings.extend(conflict::in_set(&loaded.set.policies));
        loaded
    }

    /// The policies, in the order they were read.
    #[must_use]
    pub fn policies(&self) -> &[PeerAuthentication] {
        &self.policies
    }
}

impl FromIterator<PeerAuthentication> for PolicySet {
    fn from_iter<I: IntoIterator<Item = PeerAuthentication>>(policies: I) -> Self {
        Self { policies: policies.into_iter().collect() }
    }
}

/// Where a resource was seen first.
struct Seen {
    file: String,
    line: u32,
}

/// The file that is being read.
struct File<'a> {
    name: &'a str,
    loaded: &'a mut Loaded,
    seen: &'a mut HashMap<(String, String), Seen>,
}

impl File<'_> {
    fn read(&mut self, text: &[u8]) {
        let parsed = portcullis_yaml::parse(text);
        self.errors(parsed.problems);
        for document in &parsed.documents {
            self.document(&Cursor::root(document), Nesting::Document);
        }
    }

    fn document(&mut self, root: &Cursor<'_>, nesting: Nesting) {
        let kind = kind::of(root);
        if kind == Kind::List && nesting == Nesting::Document {
            return self.list(root);
        }
        self.loaded.documents += 1;
        match kind {
            Kind::PeerAuthentication => self.peer_authentication(root),
            Kind::List => {
                self.error(root, "unknown-kind", "a list in a list is not opened; write its items out".to_owned())
            }
            Kind::Ignored(message) => {
                let warning = Diagnostic::at(self.name, root.position(), "ignored-kind", message);
                self.loaded.warnings.push(warning);
            }
            Kind::Refused(reason, message) => self.error(root, reason, message),
            Kind::Reported => {}
        }
    }

    fn list(&mut self, root: &Cursor<'_>) {
        let mut problems = Problems::new();
        let fields = root.fields(&["apiVersion", "kind", "metadata", "items"], &mut problems);
        let items = fields.and_then(|fields| fields.require("items", &mut problems));
        let items = items.and_then(|at| at.items(&mut problems)).unwrap_or_default();
        self.errors(problems.into_vec());
        for item in items {
            self.document(&item.as_root(), Nesting::Item);
        }
    }

    fn peer_authentication(&mut self, root: &Cursor<'_>) {
        let Read { identity, policy, problems, warnings } = resource::read(root, self.name);
        let warnings = warnings.into_vec().into_iter().map(|problem| Diagnostic::new(self.name, problem));
        self.loaded.warnings.extend(warnings);
        self.errors(problems.into_vec());
        let Some(identity) = identity else { return };
        match self.seen.entry(identity) {
            Entry::Occupied(first) => {
                let ((namespace, name), Seen { file, line }) = (first.key(), first.get());
                let message = format!(
                    "PeerAuthentication {}/{} is at {file}:{line} already; remove one of them, or give it another name",
                    portcullis_yaml::printable(namespace),
                    portcullis_yaml::printable(name)
                );
                self.error(root, "duplicate-resource", message);
            }
            Entry::Vacant(first) => {
                first.insert(Seen { file: self.name.to_owned(), line: root.position().line });
                self.loaded.set.policies.extend(policy);
            }
        }
    }

    fn errors(&mut self, problems: Vec<Problem>) {
        let errors = problems.into_iter().map(|problem| Diagnostic::new(self.name, problem));
        self.loaded.errors.extend(errors);
    }

    fn error(&mut self, root: &Cursor<'_>, reason: &'static str, message: String) {
        self.loaded.errors.push(Diagnostic::at(self.name, root.position(), reason, message));
    }
}

/// Where a document stands.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Nesting {
    Document,
    Item,
}
