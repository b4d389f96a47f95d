//! Reading a folder of YAML and JSON files: recursive, in lexical order, never leaving the folder.
//!
//! A volume that Kubernetes mounts holds `a.yaml -> ..data/a.yaml` and `..data -> ..2026_11_24`. Skipping names that
//! begin with a dot and following links therefore reads each file once. That the links stay inside is checked on
//! resolved paths before opening; a process that may write into the folder is trusted not to race that check.

use std::ffi::OsString;
use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::ReadError;
use crate::extension::is_resource_file;
use crate::file;
use crate::limits::{MAX_FOLDER_BYTES, MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES};
use crate::origin::{Location, Root, Volume};
use crate::reading::Reading;
use crate::watched_names::is_hidden;

/// Reads all policy files below `path`.
pub(crate) fn read(path: &Path) -> Reading {
    walk(path, None)
}

/// Reads the policy files directly in `path`, except those with these names.
pub(crate) fn read_flat(path: &Path, except: &[OsString]) -> Reading {
    walk(path, Some(except))
}

fn walk(path: &Path, flat: Option<&[OsString]>) -> Reading {
    let mut reading = Reading::empty();
    let root = reading.names.follow_folder(path);
    reading.origins.root = Some(Root { shown: path.to_owned(), real: root.clone() });
    let mut walk = Walk { root, shown_root: path, flat, reading, trail: Vec::new(), bytes: 0, entries: 0 };
    let root = walk.root.clone();
    // A limit that was exceeded is recorded already.
    let _ = walk.folder(&root, path);
    walk.reading
}

struct Walk<'a> {
    root: PathBuf,
    shown_root: &'a Path,
    /// Read only the files directly in the folder, without those of these names.
    flat: Option<&'a [OsString]>,
    reading: Reading,
    /// The folders that are being listed, outermost first, without links.
    trail: Vec<PathBuf>,
    bytes: u64,
    entries: usize,
}

/// A limit of the whole folder was exceeded; the error is recorded.
struct LimitExceeded;

impl Walk<'_> {
    /// `real` is the folder's path without links, `shown` its path as the operator knows it.
    fn folder(&mut self, real: &Path, shown: &Path) -> Result<(), LimitExceeded> {
        if self.trail.iter().any(|outer| outer == real) {
            self.reading.errors.push(ReadError::FolderLoop { path: shown.to_owned() });
            return Ok(());
        }
        if self.trail.len() == MAX_FOLDER_DEPTH {
            return self.limit_exceeded(format!("{MAX_FOLDER_DEPTH} levels of folders"));
        }
        match self.flat {
            None => self.reading.names.tree(real),
            Some(_) => self.reading.names.files(real),
        }
        let volume = Volume::of(real).map(|volume| (real.to_owned(), volume));
        self.reading.origins.volumes.extend(volume);
        let names = match sorted_names(real) {
            Ok(names) => names,
            // The folder was removed meanwhile, with its files.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.trail.is_empty() => return Ok(()),
            Err(error) => {
                self.reading.errors.push(ReadError::io(shown, error));
                return Ok(());
            }
        };
        self.trail.push(real.to_owned());
        for name in names {
            if self.flat.is_some_and(|except| except.contains(&name) || !is_resource_file(Path::new(&name))) {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_FOLDER_ENTRIES {
                return self.limit_exceeded(format!("{MAX_FOLDER_ENTRIES} entries"));
            }
            self.entry(&real.join(&name), &shown.join(&name))?;
        }
        self.trail.pop();
        Ok(())
    }

    fn entry(&mut self, real: &Path, shown: &Path) -> Result<(), LimitExceeded> {
        let Some(kind) = self.record_error(file_type(real), shown) else { return Ok(()) };
        if !kind.is_symlink() {
            return self.resolved(real, shown, kind);
        }
        let target = self.reading.names.follow_file(real);
        let kind = match file_type(&target) {
            // The link is gone as well: not an error.
            Ok(None) if matches!(file_type(real), Ok(None)) => return Ok(()),
            // A dangling link is not the same as no file: the operator expects one there.
            Ok(None) => Err(io::Error::new(io::ErrorKind::NotFound, "the target of the link does not exist")),
            other => other,
        };
        let Some(kind) = self.record_error(kind, shown) else { return Ok(()) };
        if !(kind.is_dir() || is_resource_file(shown)) {
            return Ok(());
        }
        if !target.starts_with(&self.root) {
            self.reading.errors.push(ReadError::LeavesFolder { path: shown.to_owned(), target });
            return Ok(());
        }
        self.resolved(&target, shown, kind)
    }

    /// Reads an entry whose links are resolved.
    fn resolved(&mut self, real: &Path, shown: &Path, kind: FileType) -> Result<(), LimitExceeded> {
        if !is_resource_file(shown) {
            return if kind.is_dir() { self.folder(real, shown) } else { Ok(()) };
        }
        if !kind.is_file() {
            self.reading.errors.push(ReadError::NotRegularFile { path: shown.to_owned() });
            return Ok(());
        }
        let result = file::read(real, shown);
        if !matches!(&result, Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound) {
            let below = shown.strip_prefix(self.shown_root).unwrap_or(shown);
            let location = Location { real: real.to_owned(), entry: self.root.join(below) };
            self.reading.origins.locations.insert(shown.to_owned(), location);
        }
        match result {
            Ok(file) => {
                self.bytes = self.bytes.saturating_add(file.content.len() as u64);
                if self.bytes > MAX_FOLDER_BYTES {
                    return self.limit_exceeded(format!("{MAX_FOLDER_BYTES} bytes"));
                }
                self.reading.files.push(file);
            }
            Err(ReadError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.reading.errors.push(error),
        }
        Ok(())
    }

    /// Records an error; `None` for an error and for what does not exist.
    fn record_error(&mut self, kind: io::Result<Option<FileType>>, shown: &Path) -> Option<FileType> {
        kind.unwrap_or_else(|error| {
            self.reading.errors.push(ReadError::io(shown, error));
            None
        })
    }

    fn limit_exceeded(&mut self, limit: String) -> Result<(), LimitExceeded> {
        self.reading.errors.push(ReadError::FolderTooLarge { path: self.shown_root.to_owned(), limit });
        Err(LimitExceeded)
    }
}

/// The names in a folder that count, in lexical order.
fn sorted_names(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !is_hidden(&name) {
            names.push(name);
        }
        // One more than allowed proves that there are too many; the rest need not be held in memory.
        if names.len() > MAX_FOLDER_ENTRIES {
            break;
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What is at `path` itself, links not followed; `None` when nothing is.
fn file_type(path: &Path) -> io::Result<Option<FileType>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
