//! The inotify side: keeps watches on the folders of an [`Interest`] and turns their events into one signal.
//!
//! It may miss things and says so only once: file systems without events, exhausted watch limits and races between a
//! folder's birth and its watch are what the periodic rescan is for.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::interest::Interest;
use crate::signals::Signals;

/// Which folder it is, whatever its name: device and inode.
type Identity = (u64, u64);

pub(crate) struct Notice {
    inotify: RecommendedWatcher,
    interest: Arc<Mutex<Interest>>,
    watched: BTreeMap<PathBuf, Identity>,
    complained: bool,
}

impl Notice {
    /// `None`, after a log line, if the system gives us no inotify: the rescan then has to do.
    pub(crate) fn new(signals: Arc<Signals>) -> Option<Self> {
        let interest = Arc::new(Mutex::new(Interest::default()));
        let seen = Arc::clone(&interest);
        let handler = move |event: notify::Result<Event>| {
            let interest = seen.lock().unwrap_or_else(PoisonError::into_inner);
            if matters(&event, &interest) {
                signals.changed(Instant::now());
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(inotify) => Some(Self { inotify, interest, watched: BTreeMap::new(), complained: false }),
            Err(error) => {
                tracing::warn!(%error, "no inotify: changes of files are found by the periodic rescan alone");
                None
            }
        }
    }

    /// Watches what `interest` names, and says whether a folder came under watch that was not: what happened in it
    /// before was announced to nobody.
    pub(crate) fn follow(&mut self, interest: &Interest) -> bool {
        interest.clone_into(&mut self.interest.lock().unwrap_or_else(PoisonError::into_inner));
        let wanted = interest.watched();
        let dropped: Vec<PathBuf> = self.watched.keys().filter(|folder| !wanted.contains(*folder)).cloned().collect();
        for folder in dropped {
            self.forget(&folder);
        }
        let mut new = false;
        for folder in wanted {
            new |= self.watch(&folder);
        }
        new
    }

    /// Asks again even for a folder that is watched: when one is deleted and created again with the same inode number,
    /// its watch is gone although nothing looks different.
    fn watch(&mut self, folder: &Path) -> bool {
        let Ok(metadata) = fs::metadata(folder) else {
            self.forget(folder);
            return false;
        };
        let identity = (metadata.dev(), metadata.ino());
        let known = self.watched.get(folder) == Some(&identity);
        if !known {
            // The watch of a folder that was renamed away would go on reporting under this name.
            self.forget(folder);
        }
        match self.inotify.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(folder.to_owned(), identity);
                !known
            }
            Err(error) => {
                self.watched.remove(folder);
                if !self.complained && !matches!(error.kind, notify::ErrorKind::PathNotFound) {
                    self.complained = true;
                    tracing::warn!(
                        folder = %folder.display(), %error,
                        "cannot watch a folder: its changes are found by the periodic rescan alone"
                    );
                }
                false
            }
        }
    }

    fn forget(&mut self, folder: &Path) {
        if self.watched.remove(folder).is_some() {
            // An error means that the watch ended by itself, with its folder.
            let _ = self.inotify.unwatch(folder);
        }
    }
}

/// Our own reading opens and closes files, so only what can change content counts.
fn matters(event: &notify::Result<Event>, interest: &Interest) -> bool {
    let Ok(event) = event else { return true };
    let harmless = match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
        EventKind::Access(_) => true,
        _ => false,
    };
    event.need_rescan() || (!harmless && event.paths.iter().any(|path| interest.covers(path)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::signals::Wake;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(300)
    }

    #[test]
    fn reading_is_no_news_and_neighbours_are_not_either() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        fs::write(top.join("cert.pem"), "1").unwrap();
        let mut interest = Interest::default();
        interest.follow(&top.join("cert.pem"));
        let signals = Arc::new(Signals::default());
        let mut notice = Notice::new(Arc::clone(&signals)).unwrap();
        assert!(notice.follow(&interest));
        assert!(!notice.follow(&interest));

        fs::read(top.join("cert.pem")).unwrap();
        fs::write(top.join("neighbour"), "1").unwrap();
        assert_eq!(signals.wait(soon()), Wake::Timer);
        fs::write(top.join("cert.pem"), "2").unwrap();
        assert_eq!(signals.wait(soon()), Wake::Announced);
    }

    #[test]
    fn a_folder_that_takes_the_place_of_another_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        let mut interest = Interest::default();
        interest.folder(&interest.clone().follow(&top.join("a")));
        let signals = Arc::new(Signals::default());
        let mut notice = Notice::new(Arc::clone(&signals)).unwrap();
        notice.follow(&interest);

        fs::rename(top.join("a"), top.join("old")).unwrap();
        fs::rename(top.join("b"), top.join("a")).unwrap();
        assert!(notice.follow(&interest));
        while signals.wait(soon()) != Wake::Timer {}
        fs::write(top.join("old/x"), "1").unwrap();
        assert_eq!(signals.wait(soon()), Wake::Timer, "the old folder is of no interest any more");
        fs::write(top.join("a/x"), "1").unwrap();
        assert_eq!(signals.wait(soon()), Wake::Announced);
    }
}
