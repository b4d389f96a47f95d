//! Which files form one set, and reading all of them at one go.

use std::collections::BTreeMap;
use std::fmt;
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
    /// Exactly these files, in this order; each must exist. Links are followed wherever they lead.
    Files(Vec<PathBuf>),
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
            Self::Files(paths) => read_files(paths),
        }
    }

    /// Whether files may disappear from the set without making it unreadable.
    pub(crate) fn members_may_go(&self) -> bool {
        matches!(self, Self::Folder(_))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Files(paths) => {
                for (n, path) in paths.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, path.display())?;
                }
                Ok(())
            }
        }
    }
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

fn read_files(paths: &[PathBuf]) -> Reading {
    let mut reading = Reading::empty();
    for path in paths {
        let place = reading.interest.follow(path);
        match file::read(&place, path) {
            Ok(file) => reading.files.push(file),
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
