//! Which files form one set, and reading all of them at one go.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ReadError, ReadErrors};
use crate::file::{self, FileContent};
use crate::folder;
use crate::interest::Interest;

/// Where a set of files comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Every regular file named `*.yaml` or `*.yml` below a folder, in lexical order; names that begin with a dot are
    /// skipped, links that stay inside the folder are followed. A file may come and go; see [`GONE_FOR`](crate::GONE_FOR).
    Folder(PathBuf),
    /// As [`Folder`](Self::Folder), but only what lies directly in it, and without the file of this name, which is somebody
    /// else's. Other files may change there all the time: that is no news.
    Beside {
        /// The folder.
        folder: PathBuf,
        /// The name of the file that is left out.
        except: OsString,
    },
    /// Exactly these files, in this order; each must exist. Links are followed wherever they lead.
    Files(Vec<PathBuf>),
    /// The first of these must exist, the others need not: they may come, and go as the members of a folder do. The loader
    /// gets those that are there in lexical order.
    Parts {
        /// Each must exist.
        required: Vec<PathBuf>,
        /// Left out while they do not exist.
        optional: Vec<PathBuf>,
    },
}

/// What was found at one look.
#[derive(Debug)]
pub struct Reading {
    /// The files that could be read.
    pub files: Vec<FileContent>,
    /// What could not: with any error in here the set is not to be used.
    pub errors: Vec<ReadError>,
    pub(crate) interest: Interest,
}

impl Source {
    /// Reads the whole set. Errors are collected, so that one run shows them all.
    #[must_use]
    pub fn read(&self) -> Reading {
        match self {
            Self::Folder(path) => folder::read(path),
            Self::Beside { folder, except } => folder::read_flat(folder, except),
            Self::Files(paths) => read_files(paths, &[]),
            Self::Parts { required, optional } => {
                let mut reading = read_files(required, optional);
                reading.files.sort_by(|a, b| a.path.cmp(&b.path));
                reading
            }
        }
    }

    /// The folders that reading this set opens files in now, and those around them in which a replacement would appear: a
    /// link that is swapped, a folder that takes another's place. For whoever restricts what this process may read.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let mut reach = Reach::default();
        match self {
            Self::Folder(folder) | Self::Beside { folder, .. } => reach.add_folder(folder),
            Self::Files(paths) => paths.iter().for_each(|path| reach.add_file(path)),
            Self::Parts { required, optional } => required.iter().chain(optional).for_each(|path| reach.add_file(path)),
        }
        reach
    }

    /// Whether files may disappear from the set without making it unreadable.
    pub(crate) fn members_may_go(&self) -> bool {
        matches!(self, Self::Folder(_) | Self::Beside { .. } | Self::Parts { .. })
    }
}

/// Where the files of a set are. All paths are absolute and free of links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach {
    /// Folders that hold the files; the file itself where its folder is the root.
    pub within: BTreeSet<PathBuf>,
    /// Folders that hold those folders, or links on the way.
    pub around: BTreeSet<PathBuf>,
}

impl Reach {
    fn add_folder(&mut self, path: &Path) {
        let mut interest = Interest::default();
        let end = interest.follow(path);
        // A replacement of the folder appears beside it; what holds that place is not looked into.
        self.around.extend(interest.holders_except(end.parent()));
        self.within.insert(end);
    }

    fn add_file(&mut self, path: &Path) {
        let mut interest = Interest::default();
        let end = interest.follow(path);
        self.around.extend(interest.holders_except(None));
        let holder = end.parent().filter(|holder| holder.parent().is_some());
        self.within.insert(holder.map_or_else(|| end.clone(), Path::to_owned));
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Beside { folder, .. } => write!(f, "{}/*.yaml", folder.display()),
            Self::Files(paths) => list(f, paths.iter()),
            Self::Parts { required, optional } => list(f, required.iter().chain(optional)),
        }
    }
}

fn list<'p>(f: &mut fmt::Formatter<'_>, paths: impl Iterator<Item = &'p PathBuf>) -> fmt::Result {
    for (n, path) in paths.enumerate() {
        write!(f, "{}{}", if n == 0 { "" } else { ", " }, path.display())?;
    }
    Ok(())
}

impl Reading {
    pub(crate) fn empty() -> Self {
        Self { files: Vec::new(), errors: Vec::new(), interest: Interest::default() }
    }

    /// The files, if nothing was wrong.
    ///
    /// # Errors
    /// Everything that could not be read.
    pub fn complete(self) -> Result<Vec<FileContent>, ReadErrors> {
        match ReadErrors::new(self.errors) {
            Some(errors) => Err(errors),
            None => Ok(self.files),
        }
    }
}

fn read_files(required: &[PathBuf], optional: &[PathBuf]) -> Reading {
    let mut reading = Reading::empty();
    let required = required.iter().map(|path| (path, false));
    for (path, may_lack) in required.chain(optional.iter().map(|path| (path, true))) {
        let place = reading.interest.follow(path);
        match file::read(&place, path) {
            Ok(file) => reading.files.push(file),
            // Only what is not there: one that cannot be read may hold what counts.
            Err(ReadError::Io { error, .. }) if may_lack && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => reading.errors.push(error),
        }
    }
    reading
}

/// Lets files that did not change keep the allocation that `known` has for them.
pub(crate) fn share_unchanged(files: &mut [FileContent], known: &[FileContent]) {
    let known: BTreeMap<&Path, &FileContent> = known.iter().map(|file| (file.path.as_path(), file)).collect();
    for file in files {
        if let Some(old) = known.get(file.path.as_path())
            && old.content == file.content
        {
            file.content = old.content.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_is_optional_may_be_missing_and_nothing_may_be_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let [b, a, other] = ["b", "a", "other"].map(|name| folder.path().join(name));
        let source = Source::Parts { required: vec![b.clone()], optional: vec![a.clone(), other.clone()] };
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
