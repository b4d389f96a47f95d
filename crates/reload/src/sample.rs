//! The state of watched names at one time, for directories that are too busy to be watched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::extension::is_resource_file;
use crate::limits::MAX_FOLDER_ENTRIES;
use crate::watched_names::{Contents, Directory, is_hidden};

/// What identifies a file and its version. Times are not proof that nothing changed: the periodic rescan compares contents.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The versions of the names that exist.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Sample(BTreeMap<PathBuf, Version>);

impl Sample {
    /// Takes a sample of the names that matter in these directories.
    pub(crate) fn take<'d>(directories: impl Iterator<Item = (&'d PathBuf, &'d Directory)>) -> Self {
        let mut sample = Self::default();
        for (path, directory) in directories {
            for name in &directory.names {
                sample.add(path.join(name));
            }
            if directory.contents != Contents::None {
                sample.list(path, directory.contents);
            }
        }
        sample
    }

    fn add(&mut self, path: PathBuf) {
        let Ok(found) = fs::symlink_metadata(&path) else { return };
        let (modified, changed) = ((found.mtime(), found.mtime_nsec()), (found.ctime(), found.ctime_nsec()));
        // The times of a folder change with each foreign file in it.
        let times = if found.is_dir() { None } else { Some((modified, changed)) };
        let (modified, changed) = times.unwrap_or_default();
        let size = if found.is_dir() { 0 } else { found.size() };
        self.0.insert(path, Version { device: found.dev(), inode: found.ino(), size, modified, changed });
    }

    fn list(&mut self, folder: &Path, contents: Contents) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.take(MAX_FOLDER_ENTRIES).flatten() {
            let name = entry.file_name();
            let may_be_folder =
                || contents == Contents::Tree && entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
            if !is_hidden(&name) && (is_resource_file(Path::new(&name)) || may_be_folder()) {
                self.add(folder.join(name));
            }
        }
    }
}
