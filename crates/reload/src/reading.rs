//! One reading of a whole set.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{ReadError, ReadErrors};
use crate::file::{self, FileContent};
use crate::origin::{Location, Origins};
use crate::watched_names::WatchedNames;

/// The files of a set at one time.
#[derive(Debug)]
pub struct Reading {
    /// The files that could be read.
    pub files: Vec<FileContent>,
    /// What could not be read. With any error the set must not be used.
    pub errors: Vec<ReadError>,
    pub(crate) names: WatchedNames,
    pub(crate) origins: Origins,
}

impl Reading {
    pub(crate) fn empty() -> Self {
        let (names, origins) = (WatchedNames::default(), Origins::default());
        Self { files: Vec::new(), errors: Vec::new(), names, origins }
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

    /// Replaces each file that is `being_written` by its `accepted` content, or leaves it out if it has none. Returns whether
    /// there was such a file.
    pub(crate) fn hold_back(&mut self, being_written: &BTreeSet<PathBuf>, accepted: &[FileContent]) -> bool {
        if being_written.is_empty() {
            return false;
        }
        let locations = &self.origins.locations;
        let written = |path: &Path| locations.get(path).is_some_and(|at| being_written.contains(&at.real));
        // A file that is empty for now has an error instead of a content.
        let empty = |error: &ReadError| match error {
            ReadError::EmptyFile { path } if written(path) => Some(path.clone()),
            _ => None,
        };
        let emptied: Vec<PathBuf> = self.errors.iter().filter_map(empty).collect();
        self.errors.retain(|error| empty(error).is_none());
        let count = self.files.len();
        let mut files = Vec::with_capacity(count);
        let mut held = !emptied.is_empty();
        for file in std::mem::take(&mut self.files) {
            if written(&file.path) {
                held = true;
                files.extend(accepted.iter().find(|known| known.path == file.path).cloned());
            } else {
                files.push(file);
            }
        }
        self.files = files;
        self.restore(&emptied, accepted);
        held
    }

    /// Adds the accepted content of files that could not be read, where they belong.
    fn restore(&mut self, paths: &[PathBuf], accepted: &[FileContent]) {
        let restored = accepted.iter().filter(|known| paths.contains(&known.path)).cloned();
        self.files.extend(restored);
        if self.origins.root.is_some() {
            self.files.sort_by(|a, b| a.path.cmp(&b.path));
        } else {
            let order = |file: &FileContent| accepted.iter().position(|known| known.path == file.path);
            self.files.sort_by_key(|file| order(file).unwrap_or(usize::MAX));
        }
    }
}

/// Reads single files, in this order.
pub(crate) fn read_files(required: &[PathBuf], optional: &[PathBuf]) -> Reading {
    let mut reading = Reading::empty();
    let required = required.iter().map(|path| (path, false));
    for (path, may_be_missing) in required.chain(optional.iter().map(|path| (path, true))) {
        let real = reading.names.follow_file(path);
        let result = file::read(&real, path);
        reading.origins.locations.insert(path.clone(), Location { entry: real.clone(), real });
        match result {
            Ok(file) => reading.files.push(file),
            // Only a file that does not exist: one that cannot be read may hold a part of the set.
            Err(ReadError::Io { error, .. }) if may_be_missing && error.kind() == io::ErrorKind::NotFound => {}
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
