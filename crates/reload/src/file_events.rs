//! Events of single files, while the directory that holds them is too busy to be watched.
//!
//! A watch on a file reports that the file is written, closed or removed, and nothing about its neighbours. It does not report
//! that another file replaced it under its name; samples find that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::inbox::Inbox;
use crate::observations::Observations;

/// The most files that have a watch of their own.
const MAX_FILES: usize = 1000;

/// Device and inode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct FileId {
    device: u64,
    inode: u64,
}

/// Watches on files.
#[derive(Debug)]
pub(crate) struct FileEvents {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, FileId>,
}

impl FileEvents {
    /// # Errors
    /// If the system has no inotify instance left.
    pub(crate) fn new(inbox: Arc<Inbox>) -> notify::Result<Self> {
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| handle(&event, &inbox))?;
        Ok(Self { watcher, watched: BTreeMap::new() })
    }

    /// Watches these files and no others. A file that cannot be watched is left to samples and rescans.
    pub(crate) fn follow(&mut self, files: &BTreeSet<PathBuf>) {
        let dropped: Vec<PathBuf> = self.watched.keys().filter(|path| !files.contains(*path)).cloned().collect();
        for path in dropped {
            self.unwatch(&path);
        }
        for path in files.iter().take(MAX_FILES) {
            let Ok(found) = fs::symlink_metadata(path) else {
                self.unwatch(path);
                continue;
            };
            let id = FileId { device: found.dev(), inode: found.ino() };
            if self.watched.get(path) == Some(&id) {
                continue;
            }
            self.unwatch(path);
            if self.watcher.watch(path, RecursiveMode::NonRecursive).is_ok() {
                self.watched.insert(path.clone(), id);
            }
        }
    }

    fn unwatch(&mut self, path: &Path) {
        if self.watched.remove(path).is_some() {
            // An error means that the watch ended with its file.
            let _ended = self.watcher.unwatch(path);
        }
    }
}

fn handle(event: &notify::Result<Event>, inbox: &Inbox) {
    let now = Instant::now();
    let Ok(event) = event else { return inbox.announce_loss(now) };
    if event.need_rescan() {
        return inbox.announce_loss(now);
    }
    let note: fn(&mut Observations, &Path, Instant) = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => |observed, path, _| observed.closed(path),
        // Reading opens and closes files too.
        EventKind::Access(_) => return,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => |observed, path, _| observed.removed(path),
        EventKind::Modify(ModifyKind::Metadata(_)) => |observed, path, _| observed.attributes_changed(path),
        EventKind::Modify(_) => Observations::modified,
        _ => |_, _, _| {},
    };
    for path in &event.paths {
        inbox.observe(|observed| note(observed, path, now));
    }
    inbox.announce(now);
}
