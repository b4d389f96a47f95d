//! All sources of events for one set: watches on directories, and for directories that are too busy, samples of the names
//! that matter and watches on the files themselves.
//!
//! Events of other files cost at most about 1 % of a core. Events may still be missed: file systems without
//! events, exhausted watch limits and races between the creation of a folder and its watch are found by the periodic rescan.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::directory_events::{BATCH, BATCH_INTERVAL, Batch, DirectoryEvents};
use crate::file_events::FileEvents;
use crate::inbox::Inbox;
use crate::reading::Reading;
use crate::sample::Sample;
use crate::watched_names::WatchedNames;

/// How long a busy directory is not watched: the first time, and at most, after it was busy several times in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The shortest time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Sampling takes at most one part in 150 of the time.
const SAMPLE_SHARE: u32 = 150;

/// The most events that are read from the queue of an instance that is replaced. By default a queue holds 16,384.
const LAST_EVENTS: usize = 20_000;

/// The most waiting events that are read before a set is accepted, to find open writers.
const CATCH_UP: usize = 4 * BATCH;

#[derive(Debug)]
pub(crate) struct Events {
    inbox: Arc<Inbox>,
    directories: DirectoryEvents,
    names: WatchedNames,
    /// The files of the set, without links.
    set_files: BTreeSet<PathBuf>,
    busy: BTreeMap<PathBuf, Pause>,
    /// While a directory is busy.
    files: Option<FileEvents>,
    sample: Sample,
    sample_at: Instant,
    read_at: Instant,
    warned: bool,
}

/// A directory that had too many foreign events.
#[derive(Debug)]
struct Pause {
    length: Duration,
    until: Instant,
    watched_again: bool,
}

impl Pause {
    /// Whether the directory has been quiet for so long that the next pause is a first one.
    fn is_over(&self, now: Instant) -> bool {
        self.watched_again && now >= self.until + self.length + FIRST_PAUSE
    }
}

impl Events {
    /// `None`, after a log line, if inotify is not available: changes are then found by the rescan alone.
    pub(crate) fn new(inbox: Arc<Inbox>) -> Option<Self> {
        let now = Instant::now();
        match DirectoryEvents::new() {
            Ok(directories) => Some(Self {
                inbox,
                directories,
                names: WatchedNames::default(),
                set_files: BTreeSet::new(),
                busy: BTreeMap::new(),
                files: None,
                sample: Sample::default(),
                sample_at: now,
                read_at: now,
                warned: false,
            }),
            Err(error) => {
                tracing::warn!(%error, "no inotify: changes of files are found by the periodic rescan alone");
                None
            }
        }
    }

    /// Watches what a reading depends on. Returns whether a directory is watched newly: earlier changes in it caused no event.
    pub(crate) fn follow(&mut self, reading: &Reading) -> bool {
        reading.names.clone_into(&mut self.names);
        let now = Instant::now();
        let wanted = self.names.directories();
        let dropped: Vec<PathBuf> =
            self.directories.watched().filter(|path| !wanted.contains_key(*path)).cloned().collect();
        for path in dropped {
            self.directories.unwatch(&path);
        }
        self.busy.retain(|path, pause| wanted.contains_key(path) && !pause.is_over(now));
        let new = self.watch_all(now);
        self.set_files = reading.origins.locations.values().map(|at| at.real.clone()).collect();
        self.watch_files();
        new
    }

    fn watch_all(&mut self, now: Instant) -> bool {
        let mut new = false;
        for (path, directory) in self.names.directories() {
            if self.busy.get(path).is_some_and(|pause| !pause.watched_again) {
                continue;
            }
            match self.directories.watch(path, directory, now) {
                Ok(first) => new |= first,
                // It does not exist, or not yet: its parent is watched.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) if !self.warned => {
                    self.warned = true;
                    tracing::warn!(
                        folder = %path.display(), %error,
                        "cannot watch a folder: its changes are found by the periodic rescan alone"
                    );
                }
                Err(_) => {}
            }
        }
        new
    }

    /// Watches the set's files in busy directories one by one.
    fn watch_files(&mut self) {
        if !self.is_busy() {
            self.files = None;
            return;
        }
        let in_busy = |path: &Path| {
            let pause = path.parent().and_then(|holder| self.busy.get(holder));
            pause.is_some_and(|pause| !pause.watched_again)
        };
        let files: BTreeSet<PathBuf> = self.set_files.iter().filter(|path| in_busy(path)).cloned().collect();
        if files.is_empty() {
            self.files = None;
            return;
        }
        if self.files.is_none() {
            // Without it only samples find changes.
            self.files = FileEvents::new(Arc::clone(&self.inbox)).ok();
        }
        if let Some(events) = &mut self.files {
            events.follow(&files);
        }
    }

    fn is_busy(&self) -> bool {
        self.busy.values().any(|pause| !pause.watched_again)
    }

    /// Readable when [`work`](Self::work) has events to read; `None` while it is too early.
    pub(crate) fn as_fd(&self, now: Instant) -> Option<BorrowedFd<'_>> {
        (now >= self.read_at).then(|| self.directories.as_fd())
    }

    /// When [`work`](Self::work) is to be called at the latest.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let read = (now < self.read_at).then_some(self.read_at);
        let sample = self.is_busy().then_some(self.sample_at);
        [read, sample].into_iter().flatten().min()
    }

    /// Reads a batch of events and takes a sample, as far as they are due.
    pub(crate) fn work(&mut self, now: Instant) {
        if now >= self.read_at {
            let batch = self.directories.read(BATCH, now, &self.inbox);
            self.handle(batch, now);
        }
        if self.is_busy() && now >= self.sample_at {
            self.end_pauses(now);
            self.compare(now);
        }
    }

    /// Reads the events that came in while the set was read. Returns whether the queue is empty now.
    pub(crate) fn catch_up(&mut self, now: Instant) -> bool {
        let batch = self.directories.read(CATCH_UP, now, &self.inbox);
        let complete = !batch.more && !batch.lost;
        self.handle(batch, now);
        complete
    }

    fn handle(&mut self, batch: Batch, now: Instant) {
        if batch.events > 0 {
            self.read_at = now + BATCH_INTERVAL;
        }
        if batch.changed {
            self.inbox.announce(now);
        }
        if batch.lost {
            self.inbox.announce_loss(now);
        }
        if !batch.busy.is_empty() {
            self.pause(batch.busy, now);
        }
    }

    /// Stops watching directories that are too busy. The instance is replaced, so that their events do not delay others. What
    /// its queue holds is read once more, after the files have watches of their own: no removal is missed in between.
    fn pause(&mut self, busy: Vec<PathBuf>, now: Instant) {
        for path in busy {
            tracing::debug!(folder = %path.display(), "too many foreign events: the folder is sampled for some time");
            let length = self.busy.get(&path).map_or(FIRST_PAUSE, |pause| (pause.length * 2).min(MAX_PAUSE));
            self.busy.insert(path, Pause { length, until: now + length, watched_again: false });
        }
        self.watch_files();
        match DirectoryEvents::new() {
            Ok(directories) => {
                let mut replaced = std::mem::replace(&mut self.directories, directories);
                if replaced.read(LAST_EVENTS, now, &self.inbox).changed {
                    self.inbox.announce(now);
                }
            }
            // The old instance goes on without the busy directories; what is in its queue has to be read.
            Err(_) => self.busy.keys().for_each(|path| self.directories.unwatch(path)),
        }
        self.watch_all(now);
        self.take_sample(now);
        self.inbox.suspect();
    }

    fn end_pauses(&mut self, now: Instant) {
        let mut ended = false;
        for pause in self.busy.values_mut().filter(|pause| !pause.watched_again && now >= pause.until) {
            pause.watched_again = true;
            ended = true;
        }
        if ended {
            self.watch_all(now);
            // What changed since the last sample causes no event.
            self.inbox.suspect();
        }
    }

    fn compare(&mut self, now: Instant) {
        let before = std::mem::take(&mut self.sample);
        self.take_sample(now);
        if self.sample != before {
            self.inbox.suspect();
        }
    }

    fn take_sample(&mut self, now: Instant) {
        let start = Instant::now();
        let sampled = |path: &PathBuf| self.busy.get(path).is_some_and(|pause| !pause.watched_again);
        self.sample = Sample::take(self.names.directories().iter().filter(|(path, _)| sampled(path)));
        self.sample_at = now + SAMPLE_INTERVAL.max(start.elapsed() * SAMPLE_SHARE);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::directory_events::MAX_FOREIGN_PER_SECOND;
    use crate::file_set::FileSet;
    use crate::inbox::{Next, QUIET, Wake};

    /// Longer than it takes until the next sample, also where samples are slow.
    const LONG: Duration = Duration::from_secs(1);

    struct Fixture {
        dir: tempfile::TempDir,
        set: FileSet,
        inbox: Arc<Inbox>,
        events: Events,
        /// Events carry the time at which they are read, so the clock can be advanced at will.
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("cert.pem"), "1").unwrap();
            let set = FileSet::Files(vec![dir.path().join("cert.pem")]);
            let inbox = Arc::new(Inbox::new().unwrap());
            let mut events = Events::new(Arc::clone(&inbox)).unwrap();
            assert!(events.follow(&set.read()), "newly watched");
            assert!(!events.follow(&set.read()), "watched already");
            Self { dir, set, inbox, events, now: Instant::now() }
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.dir.path().join(name), text).unwrap();
        }

        /// The reason to read the set after these events were handled, if any.
        fn wake(&mut self, passed: Duration) -> Option<Wake> {
            self.now += passed;
            self.events.work(self.now);
            match self.inbox.take(self.now + 2 * QUIET, self.now + QUIET) {
                Next::Read(wake) => Some(wake),
                Next::WaitUntil(_) => None,
            }
        }
    }

    #[test]
    fn reading_and_neighbours_cause_no_reload() {
        let mut fixture = Fixture::new();
        fs::read(fixture.dir.path().join("cert.pem")).unwrap();
        fixture.write("neighbour", "1");
        assert_eq!(fixture.wake(BATCH_INTERVAL), None);
        fixture.write("cert.pem", "2");
        assert_eq!(fixture.wake(BATCH_INTERVAL), Some(Wake::Announced));
    }

    #[test]
    fn a_folder_that_replaces_another_is_watched_instead() {
        let mut fixture = Fixture::new();
        let top = fixture.dir.path().to_owned();
        for name in ["a", "b"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        fixture.set = FileSet::Folder(top.join("a"));
        fixture.events.follow(&fixture.set.read());
        fs::rename(top.join("a"), top.join("old")).unwrap();
        fs::rename(top.join("b"), top.join("a")).unwrap();
        assert_eq!(fixture.wake(BATCH_INTERVAL), Some(Wake::Announced));
        assert!(fixture.events.follow(&fixture.set.read()));
        fixture.write("old/x.yaml", "1");
        assert_eq!(fixture.wake(BATCH_INTERVAL), None);
        fixture.write("a/x.yaml", "1");
        assert_eq!(fixture.wake(BATCH_INTERVAL), Some(Wake::Announced));
    }

    #[test]
    fn a_busy_folder_is_sampled_and_watched_again_later() {
        let mut fixture = Fixture::new();
        let noise = |fixture: &Fixture| {
            for n in 0..MAX_FOREIGN_PER_SECOND {
                fixture.write(&format!("foreign{}", n % 2), "x");
            }
        };
        noise(&fixture);
        let until_busy = |fixture: &mut Fixture| {
            (1..=20).find(|_| {
                fixture.wake(BATCH_INTERVAL);
                fixture.events.is_busy()
            })
        };
        let batches = until_busy(&mut fixture);
        assert!(batches.is_some_and(|batches| batches <= 8), "{batches:?}");

        // Its events are no longer read, and a change of the file is found by the next sample.
        noise(&fixture);
        assert_eq!(fixture.wake(LONG), None);
        assert_eq!(fixture.events.directories.watched().filter(|path| path.ends_with(fixture.dir.path())).count(), 0);
        fs::rename(fixture.dir.path().join("foreign0"), fixture.dir.path().join("cert.pem")).unwrap();
        // Or by the file's own watch, whose thread may be faster or slower.
        assert!(fixture.wake(LONG).is_some());

        assert!(fixture.wake(FIRST_PAUSE).is_some(), "what happened meanwhile caused no event");
        assert!(!fixture.events.is_busy());
        noise(&fixture);
        assert!(until_busy(&mut fixture).is_some());
        let pause = fixture.events.busy.values().next().unwrap();
        assert_eq!(pause.length, 2 * FIRST_PAUSE, "the second pause is longer");
    }
}
