//! Files that are gone stay in force until they have been gone for a second.
//!
//! Some writers delete a file and create it anew. Taking its policies out of force in between would open a port. Every
//! other change is taken at once. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::file::FileContent;

/// How long a file must be gone before its content is taken out of force.
pub const REMOVAL_DELAY: Duration = Duration::from_secs(1);

/// Since when files have been missing.
#[derive(Debug, Default)]
pub(crate) struct RemovalDelay {
    missing: BTreeMap<PathBuf, Instant>,
}

/// The set with the files that are held.
#[derive(Debug)]
pub(crate) struct Effective {
    /// What was read, and what is missing for too short a time, in lexical order.
    pub(crate) files: Vec<FileContent>,
    /// When the first of the missing files is no longer held.
    pub(crate) until: Option<Instant>,
}

impl RemovalDelay {
    /// The set to load, when `accepted` is in force and `read` was just read.
    pub(crate) fn effective(&mut self, accepted: &[FileContent], read: Vec<FileContent>, now: Instant) -> Effective {
        let gone = gone(accepted, &read);
        let paths: BTreeSet<&Path> = gone.iter().map(|file| file.path.as_path()).collect();
        self.missing.retain(|path, _| paths.contains(path.as_path()));
        let mut files = read;
        let mut until = None;
        for file in gone {
            let since = *self.missing.entry(file.path.clone()).or_insert(now);
            let end = since + REMOVAL_DELAY;
            if now < end {
                files.push(file.clone());
                until = Some(until.map_or(end, |earliest: Instant| earliest.min(end)));
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Effective { files, until }
    }

    /// Restarts all delays: a folder that could not be read does not show which files are missing.
    pub(crate) fn forget(&mut self) {
        self.missing.clear();
    }
}

/// The accepted files that were not read again. One whose content now has a new name was renamed and is not gone:
/// keeping it would make every resource in it a duplicate.
fn gone<'a>(accepted: &'a [FileContent], read: &[FileContent]) -> Vec<&'a FileContent> {
    let there: BTreeSet<&Path> = read.iter().map(|file| file.path.as_path()).collect();
    let known: BTreeSet<&Path> = accepted.iter().map(|file| file.path.as_path()).collect();
    let missing = accepted.iter().filter(|file| !there.contains(file.path.as_path()));
    let new: Vec<&FileContent> = read.iter().filter(|file| !known.contains(file.path.as_path())).collect();
    missing.filter(|file| !new.iter().any(|other| other.content == file.content)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[(&str, &str)]) -> Vec<FileContent> {
        let file = |(path, text): &(&str, &str)| FileContent {
            path: PathBuf::from(path),
            content: text.as_bytes().to_vec().into(),
            mode: 0o600,
        };
        files.iter().map(file).collect()
    }

    #[test]
    fn a_gone_file_counts_for_a_second_even_the_last_one() {
        let start = Instant::now();
        let accepted = set(&[("a", "1")]);
        let mut delay = RemovalDelay::default();
        let first = delay.effective(&accepted, set(&[]), start);
        assert_eq!((first.files, first.until), (accepted.clone(), Some(start + REMOVAL_DELAY)));
        let almost = delay.effective(&accepted, set(&[]), start + REMOVAL_DELAY - Duration::from_millis(1));
        assert_eq!(almost.files, accepted);
        let over = delay.effective(&accepted, set(&[]), start + REMOVAL_DELAY);
        assert_eq!((over.files, over.until), (set(&[]), None));
    }

    #[test]
    fn other_changes_do_not_wait_and_keep_the_order() {
        let start = Instant::now();
        let accepted = set(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let now = RemovalDelay::default().effective(&accepted, set(&[("a", "2"), ("c", "1"), ("d", "4")]), start);
        assert_eq!(now.files, set(&[("a", "2"), ("b", "1"), ("c", "1"), ("d", "4")]));
    }

    #[test]
    fn a_file_that_comes_back_starts_a_new_second() {
        let start = Instant::now();
        let half = REMOVAL_DELAY / 2;
        let accepted = set(&[("a", "1")]);
        let mut delay = RemovalDelay::default();
        delay.effective(&accepted, set(&[]), start);
        delay.effective(&accepted, accepted.clone(), start + half);
        let again = delay.effective(&accepted, set(&[]), start + 2 * half);
        assert_eq!(again.until, Some(start + 2 * half + REMOVAL_DELAY));
    }

    #[test]
    fn a_renamed_file_is_not_gone_but_a_copy_that_was_there_before_is_no_rename() {
        let start = Instant::now();
        let accepted = set(&[("a", "1"), ("b", "1")]);
        let renamed = RemovalDelay::default().effective(&accepted, set(&[("b", "1"), ("c", "1")]), start);
        assert_eq!(renamed.files, set(&[("b", "1"), ("c", "1")]));
        let deleted = RemovalDelay::default().effective(&accepted, set(&[("b", "1")]), start);
        assert_eq!(deleted.files, accepted);
    }
}
