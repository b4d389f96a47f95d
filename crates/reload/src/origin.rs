//! Where the files of a set come from, and whether a file that is gone was removed on purpose.
//!
//! Deleting a policy is intended; losing a volume is not. A folder that is unmounted shows the empty folder below it, and
//! nothing in a listing tells one from the other. Two things do: the volume that the folder is on, and the events of a
//! removal. Pure but for [`Volume::of`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::error::ReadError;
use crate::file::FileContent;
use crate::observations::Removals;

/// Which file system, and which mount of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Volume {
    device: (u32, u32),
    /// 0 where the kernel does not number mounts (before 5.8).
    mount: u64,
}

impl Volume {
    /// The volume that `path` is on.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID).ok()?;
        let numbered = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        let mount = if numbered { found.stx_mnt_id } else { 0 };
        Some(Self { device: (found.stx_dev_major, found.stx_dev_minor), mount })
    }
}

/// Where a file was read. Both paths are absolute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Location {
    /// Without links.
    pub(crate) real: PathBuf,
    /// As it is named below the folder's own path without links: the entry itself may be a link.
    pub(crate) entry: PathBuf,
}

/// The files and folders of one reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// The folder that is read; `None` for a list of files.
    pub(crate) root: Option<Root>,
    /// By the path that [`FileContent`] has.
    pub(crate) locations: BTreeMap<PathBuf, Location>,
    /// The folders that were listed.
    pub(crate) volumes: BTreeMap<PathBuf, Volume>,
}

/// The folder that a set is read from.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// As the operator wrote it.
    pub(crate) shown: PathBuf,
    /// Without links.
    pub(crate) real: PathBuf,
}

impl Origins {
    /// The paths at which the files are, links and their ends alike.
    pub(crate) fn paths(&self) -> BTreeSet<&Path> {
        self.locations.values().flat_map(|at| [at.real.as_path(), at.entry.as_path()]).collect()
    }

    /// Remembers where the files of `accepted` are, and forgets all others.
    pub(crate) fn update(&mut self, accepted: &[FileContent], read: Self) {
        let used: BTreeSet<PathBuf> = read.folders().map(Path::to_owned).collect();
        let Self { root, mut locations, mut volumes } = read;
        self.root = root;
        let mut known = std::mem::take(&mut self.locations);
        let location =
            |file: &FileContent| locations.remove_entry(&file.path).or_else(|| known.remove_entry(&file.path));
        self.locations = accepted.iter().filter_map(location).collect();
        // A folder in which nothing was read may be on another volume than the files that were there.
        volumes.retain(|folder, _| used.contains(folder));
        self.volumes.extend(volumes);
        let needed: BTreeSet<PathBuf> = self.folders().map(Path::to_owned).collect();
        self.volumes.retain(|folder, _| needed.contains(folder));
    }

    /// The folders that hold the files.
    fn folders(&self) -> impl Iterator<Item = &Path> {
        self.locations.values().filter_map(|at| at.real.parent())
    }

    /// The error, if files of `accepted` are missing from `read` and cannot have been removed on purpose.
    pub(crate) fn lost(&self, accepted: &[FileContent], read: &Self, removals: &Removals) -> Option<ReadError> {
        let gone = || accepted.iter().filter(|file| !read.locations.contains_key(&file.path));
        let root = self.root.as_ref()?;
        let still_used: BTreeSet<&Path> = read.folders().collect();
        for file in gone() {
            let Some(folder) = self.locations.get(&file.path).and_then(|at| at.real.parent()) else { continue };
            let (before, now) = (self.volumes.get(folder), read.volumes.get(folder));
            if now.is_some() && before.is_some() && before != now && !still_used.contains(folder) {
                let path = file.path.parent().unwrap_or(&root.shown).to_owned();
                return Some(ReadError::VolumeChanged { path });
            }
        }
        let removed = |file: &FileContent| {
            let at = self.locations.get(&file.path);
            at.is_some_and(|at| removals.cover(&at.real, &root.real) || removals.cover(&at.entry, &root.real))
        };
        let all_vanished = read.locations.is_empty() && gone().any(|file| !removed(file));
        all_vanished.then(|| ReadError::FilesVanished { path: root.shown.clone() })
    }
}
