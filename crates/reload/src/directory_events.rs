//! inotify watches on directories, read in small batches.
//!
//! A directory that holds a name of interest may be `/tmp`, with any number of foreign events. So the queue is read at most
//! [`BATCH`] events at a time and [`BATCH_INTERVAL`] apart, names are compared without an allocation, and each directory's
//! foreign events are counted. The kernel bounds the queue (`fs.inotify.max_queued_events`).
//!
//! `notify` cannot do this: it reads until the queue is empty, also while events come in faster than it reads them, and
//! serves no other request meanwhile, not even to remove a watch.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;

use crate::inbox::Inbox;
use crate::watched_names::{Directory, Relevance};

/// How many events are read at a time; the rest of the last buffer is handled too.
pub(crate) const BATCH: usize = 256;

/// The time between two batches.
pub(crate) const BATCH_INTERVAL: Duration = Duration::from_millis(25);

/// A directory with more foreign events in a second is too busy to be watched.
pub(crate) const MAX_FOREIGN_PER_SECOND: u32 = 1000;

const SECOND: Duration = Duration::from_secs(1);

/// Room for 16 events with the longest names, or 256 with short ones.
const BUFFER: usize = 4096;

const STRUCTURE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

const CONTENT: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE).union(WatchFlags::ATTRIB);

/// The watches of one inotify instance.
#[derive(Debug)]
pub(crate) struct DirectoryEvents {
    inotify: OwnedFd,
    descriptors: BTreeMap<PathBuf, i32>,
    /// Paths that lead to one directory (bind mounts) share its descriptor.
    watches: HashMap<i32, Watch>,
}

#[derive(Debug)]
struct Watch {
    /// A name below any of the paths is the same name.
    paths: Vec<PathBuf>,
    directory: Directory,
    foreign: Rate,
}

/// Events of the current second.
#[derive(Debug)]
struct Rate {
    since: Instant,
    events: u32,
}

impl Rate {
    /// Counts an event; says whether there were too many.
    fn count(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= SECOND {
            *self = Self { since: now, events: 0 };
        }
        self.events = self.events.saturating_add(1);
        self.events > MAX_FOREIGN_PER_SECOND
    }
}

/// What a batch of events means.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Batch {
    /// How many events were read.
    pub(crate) events: usize,
    /// The set may have changed.
    pub(crate) changed: bool,
    /// Events were lost.
    pub(crate) lost: bool,
    /// The queue may hold more.
    pub(crate) more: bool,
    /// Directories that are too busy.
    pub(crate) busy: Vec<PathBuf>,
}

impl DirectoryEvents {
    /// # Errors
    /// If the system has no inotify instance left.
    pub(crate) fn new() -> Result<Self, Errno> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { inotify, descriptors: BTreeMap::new(), watches: HashMap::new() })
    }

    /// Readable when there are events.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches `path`, again if it is watched: the directory at this path may have been replaced. Returns whether this directory
    /// was not watched before.
    ///
    /// # Errors
    /// If the directory cannot be watched.
    pub(crate) fn watch(&mut self, path: &Path, directory: &Directory, now: Instant) -> Result<bool, Errno> {
        let content = if directory.holds_files { CONTENT } else { WatchFlags::empty() };
        // The mask is added to, since another path may lead to the same directory.
        let flags = STRUCTURE | content | WatchFlags::ONLYDIR | WatchFlags::MASK_ADD;
        let descriptor = match add_watch(&self.inotify, path, flags) {
            Ok(descriptor) => descriptor,
            Err(errno) => {
                self.unwatch(path);
                return Err(errno);
            }
        };
        let new = self.descriptors.get(path) != Some(&descriptor);
        if new {
            self.unwatch(path);
            self.descriptors.insert(path.to_owned(), descriptor);
        }
        let watch = self.watches.entry(descriptor).or_insert_with(|| Watch {
            paths: Vec::new(),
            directory: Directory::default(),
            foreign: Rate { since: now, events: 0 },
        });
        if !watch.paths.iter().any(|known| known == path) {
            watch.paths.push(path.to_owned());
        }
        if watch.paths.len() == 1 {
            directory.clone_into(&mut watch.directory);
        } else {
            watch.directory.merge(directory);
        }
        Ok(new)
    }

    /// Stops watching `path`.
    pub(crate) fn unwatch(&mut self, path: &Path) {
        let Some(descriptor) = self.descriptors.remove(path) else { return };
        let Some(watch) = self.watches.get_mut(&descriptor) else { return };
        watch.paths.retain(|known| known != path);
        if watch.paths.is_empty() {
            self.drop_watch(descriptor);
        }
    }

    /// The directories that are watched.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &PathBuf> {
        self.descriptors.keys()
    }

    /// Reads about `limit` events at most and records what they report about files.
    pub(crate) fn read(&mut self, limit: usize, now: Instant, inbox: &Inbox) -> Batch {
        let mut batch = Batch::default();
        let mut ended = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            // What is in the buffer is gone from the queue, so it is handled whatever the limit says.
            if batch.events >= limit && reader.is_buffer_empty() {
                batch.more = true;
                break;
            }
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(_) => {
                    batch.lost = true;
                    break;
                }
            };
            batch.events += 1;
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                batch.lost = true;
                continue;
            }
            // An event of a watch that was removed.
            let Some(watch) = self.watches.get_mut(&event.wd()) else { continue };
            let Some(name) = event.file_name() else {
                if flags
                    .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED)
                {
                    ended.push(event.wd());
                }
                batch.changed = true;
                continue;
            };
            watch.event(OsStr::from_bytes(name.to_bytes()), flags, now, inbox, &mut batch);
        }
        for descriptor in ended {
            self.drop_watch(descriptor);
        }
        batch
    }

    fn drop_watch(&mut self, descriptor: i32) {
        if let Some(watch) = self.watches.remove(&descriptor) {
            for path in watch.paths {
                self.descriptors.remove(&path);
            }
            // An error means that the watch ended with its directory.
            let _ended = remove_watch(&self.inotify, descriptor);
        }
    }
}

impl Watch {
    /// Whether the entry is a link, which may lead to a folder. One that is gone was no link that the set depends on: those
    /// are watched by name.
    fn is_link(&self, name: &OsStr) -> bool {
        let entry = self.paths.first().map(|path| path.join(name));
        entry.is_some_and(|entry| fs::symlink_metadata(entry).is_ok_and(|found| found.is_symlink()))
    }

    fn event(&mut self, name: &OsStr, flags: ReadFlags, now: Instant, inbox: &Inbox, batch: &mut Batch) {
        let structural =
            flags.intersects(ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO);
        let relevance = match self.directory.relevance(name, structural) {
            Relevance::Possible if !flags.contains(ReadFlags::ISDIR) && !self.is_link(name) => Relevance::Foreign,
            relevance => relevance,
        };
        if relevance != Relevance::Member && self.foreign.count(now) {
            let new = self.paths.iter().filter(|path| !batch.busy.contains(path)).cloned().collect::<Vec<_>>();
            batch.busy.extend(new);
        }
        if relevance == Relevance::Foreign {
            return;
        }
        batch.changed = true;
        for path in &self.paths {
            let path = path.join(name);
            inbox.observe(|observed| match flags {
                _ if flags.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) => observed.removed(&path),
                _ if structural => observed.created(&path),
                _ if flags.contains(ReadFlags::CLOSE_WRITE) => observed.closed(&path),
                _ if flags.contains(ReadFlags::MODIFY) => observed.modified(&path, now),
                _ => {}
            });
        }
    }
}
