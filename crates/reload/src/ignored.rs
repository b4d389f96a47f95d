//! The files of a folder that are not read.

use std::fs;
use std::path::{Path, PathBuf};

use crate::extension::is_resource_file;
use crate::limits::{MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES};
use crate::watched_names::is_hidden;

/// A file that is not read.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ignored {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: IgnoredReason,
}

/// Why a file is not read.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum IgnoredReason {
    /// Its name begins with a dot.
    Hidden,
    /// It ends in none of the [`EXTENSIONS`](crate::EXTENSIONS).
    Extension,
}

impl IgnoredReason {
    /// The word for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Extension => "extension",
        }
    }
}

/// The files below a folder that a [`Watcher`](crate::Watcher) of it does not read, in order. Links are not followed, and folders with a
/// dot are left out: a mounted volume has its files twice, in such a folder and as links to them. What cannot be listed is left out,
/// since it is an error of the set already.
#[must_use]
pub fn ignored_files(folder: &Path) -> Vec<Ignored> {
    let mut ignored = Vec::new();
    let mut pending = vec![(folder.to_owned(), 0)];
    let mut entries = 0_usize;
    while let Some((folder, depth)) = pending.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            entries = entries.saturating_add(1);
            if entries > MAX_FOLDER_ENTRIES {
                break;
            }
            let (path, is_hidden) = (entry.path(), is_hidden(&entry.file_name()));
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !is_hidden && depth < MAX_FOLDER_DEPTH => pending.push((path, depth + 1)),
                Ok(kind) if kind.is_file() && is_hidden => {
                    ignored.push(Ignored { path, reason: IgnoredReason::Hidden });
                }
                Ok(kind) if kind.is_file() && !is_resource_file(&path) => {
                    ignored.push(Ignored { path, reason: IgnoredReason::Extension });
                }
                _ => {}
            }
        }
    }
    ignored.sort();
    ignored
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_watcher_skips_is_named_and_a_mounted_volume_has_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.yaml", ".b.yaml", "c.yml.bak", "README"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("..2026")).unwrap();
        fs::write(at("..2026/d.yaml"), "").unwrap();
        symlink("..2026", at("..data")).unwrap();
        symlink("..data/d.yaml", at("d.yaml")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/e.txt"), "").unwrap();
        let found: Vec<_> = ignored_files(folder.path())
            .into_iter()
            .map(|one| (one.path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned(), one.reason))
            .collect();
        use IgnoredReason::{Extension, Hidden};
        let expected = [(".b.yaml", Hidden), ("README", Extension), ("c.yml.bak", Extension), ("sub/e.txt", Extension)];
        assert_eq!(found, expected.map(|(name, why)| (name.to_owned(), why)));
    }
}
