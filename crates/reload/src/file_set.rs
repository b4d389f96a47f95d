//! Which files form one set.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::folder;
use crate::reading::{Reading, read_files};
use crate::watched_names::WatchedNames;

/// The files that are read and replaced together.
#[derive(Clone, Debug)]
pub enum FileSet {
    /// Every regular file below a folder with one of the [`EXTENSIONS`](crate::EXTENSIONS), in lexical order; names that begin with a dot are
    /// skipped, links that stay inside the folder are followed. Files may be added and
    /// removed; see [`REMOVAL_DELAY`](crate::REMOVAL_DELAY).
    Folder(PathBuf),
    /// As [`Folder`](Self::Folder), but only the files directly in it, and without those of these names, which have other
    /// readers. Other files may change there at any rate without a reload.
    FlatFolder {
        /// The folder.
        folder: PathBuf,
        /// The names of the files that are left out.
        except: Vec<OsString>,
    },
    /// Exactly these files, in this order; each must exist. Links are followed wherever they lead.
    Files(Vec<PathBuf>),
    /// The first of these must exist, the others need not: they may come, and go as the members of a folder do. The loader
    /// gets those that are there in lexical order.
    SomeOptional {
        /// Each must exist.
        required: Vec<PathBuf>,
        /// Left out while they do not exist.
        optional: Vec<PathBuf>,
    },
}

impl FileSet {
    /// Reads the whole set. Errors are collected, so that one run shows them all.
    #[must_use]
    pub fn read(&self) -> Reading {
        match self {
            Self::Folder(path) => folder::read(path),
            Self::FlatFolder { folder, except } => folder::read_flat(folder, except),
            Self::Files(paths) => read_files(paths, &[]),
            Self::SomeOptional { required, optional } => {
                let mut reading = read_files(required, optional);
                reading.files.sort_by(|a, b| a.path.cmp(&b.path));
                reading
            }
        }
    }

    /// The folders that reading this set opens files in now, and those around them in which a replacement would appear: a
    /// link that is swapped, a folder that replaces another. For the sandbox, which restricts what this process may read.
    #[must_use]
    pub fn read_paths(&self) -> ReadPaths {
        let mut read_paths = ReadPaths::default();
        match self {
            Self::Folder(folder) | Self::FlatFolder { folder, .. } => read_paths.add_folder(folder),
            Self::Files(paths) => paths.iter().for_each(|path| read_paths.add_file(path)),
            Self::SomeOptional { required, optional } => {
                required.iter().chain(optional).for_each(|path| read_paths.add_file(path))
            }
        }
        read_paths
    }

    /// Whether files may be removed from the set without making it unreadable.
    pub(crate) fn allows_removal(&self) -> bool {
        matches!(self, Self::Folder(_) | Self::FlatFolder { .. } | Self::SomeOptional { .. })
    }
}

/// Where the files of a set are. All paths are absolute and free of links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReadPaths {
    /// Folders that hold the files; the file itself where its folder is the root.
    pub within: BTreeSet<PathBuf>,
    /// Folders that hold those folders, or links on the way.
    pub around: BTreeSet<PathBuf>,
}

impl ReadPaths {
    fn add_folder(&mut self, path: &Path) {
        let mut names = WatchedNames::default();
        let end = names.follow_folder(path);
        // A replacement of the folder appears beside it; its parent is not read.
        self.around.extend(names.holders_except(end.parent()));
        self.within.insert(end);
    }

    fn add_file(&mut self, path: &Path) {
        let mut names = WatchedNames::default();
        let end = names.follow_file(path);
        self.around.extend(names.holders_except(None));
        let holder = end.parent().filter(|holder| holder.parent().is_some());
        self.within.insert(holder.map_or_else(|| end.clone(), Path::to_owned));
    }
}

impl fmt::Display for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::FlatFolder { folder, .. } => write!(f, "{}/*.yaml", folder.display()),
            Self::Files(paths) => list(f, paths.iter()),
            Self::SomeOptional { required, optional } => list(f, required.iter().chain(optional)),
        }
    }
}

fn list<'p>(f: &mut fmt::Formatter<'_>, paths: impl Iterator<Item = &'p PathBuf>) -> fmt::Result {
    for (n, path) in paths.enumerate() {
        write!(f, "{}{}", if n == 0 { "" } else { ", " }, path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::ReadError;

    #[test]
    fn only_what_is_optional_may_be_missing_and_nothing_may_be_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let [b, a, other] = ["b", "a", "other"].map(|name| folder.path().join(name));
        let source = FileSet::SomeOptional { required: vec![b.clone()], optional: vec![a.clone(), other.clone()] };
        let read = || {
            let reading = source.read();
            let files: Vec<_> = reading.files.iter().map(|file| file.path.clone()).collect();
            (files, reading.errors.iter().map(ReadError::reason).collect::<Vec<_>>())
        };
        assert_eq!(read(), (vec![], vec!["unreadable"]));
        fs::write(&b, "1").unwrap();
        assert_eq!(read(), (vec![b.clone()], vec![]));
        fs::write(&a, "1").unwrap();
        assert_eq!(read(), (vec![a.clone(), b.clone()], vec![]), "in lexical order");
        // A write in progress, and what is no file: neither is taken for one that is missing.
        fs::write(&a, "").unwrap();
        fs::create_dir(&other).unwrap();
        assert_eq!(read(), (vec![b.clone()], vec!["empty-file", "not-regular-file"]));
    }
}
