//! What events report about single files: which are being written, and which were removed. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the former content of a file stays in force after it was modified and not closed.
pub const MAX_WRITE: Duration = Duration::from_secs(5);

/// The most files that are tracked. Beyond it a writer is not recognised, and a removal not proven.
const MAX_FILES: usize = 100_000;

/// Paths are absolute and free of links.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    /// Modified and not closed since, with the time of the first modification.
    writing: BTreeMap<PathBuf, Instant>,
    /// Removed or renamed away, by name.
    removed: BTreeSet<PathBuf>,
}

impl Observations {
    /// A writer changed the content and still has the file open, unless [`closed`](Self::closed) follows.
    pub(crate) fn modified(&mut self, path: &Path, now: Instant) {
        if self.writing.len() < MAX_FILES && !self.writing.contains_key(path) {
            self.writing.insert(path.to_owned(), now);
        }
    }

    /// A writer closed the file.
    pub(crate) fn closed(&mut self, path: &Path) {
        self.writing.remove(path);
    }

    /// Another file has this name now.
    pub(crate) fn created(&mut self, path: &Path) {
        self.writing.remove(path);
        self.removed.remove(path);
    }

    /// The name was removed or renamed.
    pub(crate) fn removed(&mut self, path: &Path) {
        self.writing.remove(path);
        if self.removed.len() < MAX_FILES {
            self.removed.insert(path.to_owned());
        }
    }

    /// Its attributes changed, one of which is the number of its names: it may have been removed.
    pub(crate) fn attributes_changed(&mut self, path: &Path) {
        if self.removed.len() < MAX_FILES {
            self.removed.insert(path.to_owned());
        }
    }

    /// The files that are being written; those that take longer than [`MAX_WRITE`] are forgotten.
    pub(crate) fn being_written(&mut self, now: Instant) -> BeingWritten {
        self.writing.retain(|_, since| now < *since + MAX_WRITE);
        let until = self.writing.values().min().map(|since| *since + MAX_WRITE);
        BeingWritten { paths: self.writing.keys().cloned().collect(), until }
    }

    /// What was removed.
    pub(crate) fn removals(&self) -> Removals {
        Removals(self.removed.clone())
    }

    /// Forgets removals that no longer matter: of what is `present` again, and of what is not `expected`.
    pub(crate) fn forget_removals(&mut self, expected: &BTreeSet<&Path>, present: &BTreeSet<&Path>) {
        self.removed.retain(|path| has_below(expected, path) && !has_below(present, path));
    }
}

/// Files that a writer has open.
#[derive(Clone, Debug, Default)]
pub(crate) struct BeingWritten {
    pub(crate) paths: BTreeSet<PathBuf>,
    /// When the first of them is read although it is still open.
    pub(crate) until: Option<Instant>,
}

/// Names that were removed or renamed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Removals(BTreeSet<PathBuf>);

impl Removals {
    /// Whether `path`, or a folder that holds it below `root`, was removed.
    pub(crate) fn cover(&self, path: &Path, root: &Path) -> bool {
        !self.0.is_empty()
            && path
                .ancestors()
                .take_while(|above| *above != root && above.starts_with(root))
                .any(|above| self.0.contains(above))
    }
}

/// Whether `paths` has `path` or something below it.
fn has_below(paths: &BTreeSet<&Path>, path: &Path) -> bool {
    // Paths are ordered by component, so what is below a path follows it directly.
    paths.range::<Path, _>((Bound::Included(path), Bound::Unbounded)).next().is_some_and(|next| next.starts_with(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_being_written_from_its_first_change_until_it_is_closed_and_for_five_seconds_at_most() {
        let start = Instant::now();
        let mut observed = Observations::default();
        let path = Path::new("/p/a.yaml");
        observed.modified(path, start);
        observed.modified(path, start + MAX_WRITE / 2);
        let writing = observed.being_written(start + MAX_WRITE / 2);
        assert_eq!((writing.paths.len(), writing.until), (1, Some(start + MAX_WRITE)));
        assert!(observed.being_written(start + MAX_WRITE).paths.is_empty());

        for end in [Observations::closed, Observations::created, Observations::removed] {
            observed.modified(path, start);
            end(&mut observed, path);
            assert!(observed.being_written(start).paths.is_empty());
        }
    }

    #[test]
    fn a_removal_covers_what_was_below_it_but_never_the_root() {
        let root = Path::new("/p");
        let mut observed = Observations::default();
        for path in ["/p/a.yaml", "/p/sub", "/p"] {
            observed.removed(Path::new(path));
        }
        let removed = observed.removals();
        for (path, covered) in
            [("/p/a.yaml", true), ("/p/sub/deep/b.yaml", true), ("/p/c.yaml", false), ("/p/subtle/d.yaml", false)]
        {
            assert_eq!(removed.cover(Path::new(path), root), covered, "{path}");
        }
        let (there, gone) = (Path::new("/p/sub/deep/b.yaml"), Path::new("/p/a.yaml"));
        observed.forget_removals(&BTreeSet::from([there, gone]), &BTreeSet::from([there]));
        let removed = observed.removals();
        assert!(removed.cover(gone, root) && !removed.cover(there, root));
        observed.forget_removals(&BTreeSet::from([there]), &BTreeSet::new());
        assert!(!observed.removals().cover(gone, root));
    }
}
