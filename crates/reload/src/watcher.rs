//! Starting and stopping: the first load in the caller's thread, then a thread of our own.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::engine::{Engine, Loader, read_and_follow, rescan_after};
use crate::error::ReadErrors;
use crate::file::FileContent;
use crate::notice::Notice;
use crate::progress::Progress;
use crate::signals::Signals;
use crate::source::Source;
use crate::status::{Monitor, Status};

/// How to watch.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Whether inotify is used besides the rescan.
    pub inotify: bool,
    /// How often a set of more than 1 MiB or 100 files is read without an event; smaller ones are read so often that
    /// every change is in force within two seconds.
    pub rescan_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { inotify: true, rescan_interval: Duration::from_secs(30) }
    }
}

/// Why nothing is watched. At the start there is no last good set, so everything is fatal.
#[derive(Debug, Error)]
pub enum StartError<E> {
    /// The set cannot be read.
    #[error("{0}")]
    Unreadable(ReadErrors),
    /// The loader does not want it.
    #[error("{0}")]
    Refused(E),
    /// The system has no thread for us.
    #[error("cannot start a thread to watch files: {0}")]
    Thread(io::Error),
}

/// Watches a set of files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    monitor: Monitor,
    signals: Arc<Signals>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Loads the set once, here and now, and then watches it.
    ///
    /// `loader` gets every set whose content is new, whole. It validates, swaps, and says in a few words what it took;
    /// or it refuses and changes nothing. It runs in the watcher's thread and must not wait for the watcher.
    ///
    /// # Errors
    /// If the set cannot be read, is refused by the loader, or no thread can be started.
    pub fn start<S, E, L>(source: Source, options: Options, mut loader: L) -> Result<Self, StartError<E>>
    where
        S: Display,
        E: Display,
        L: FnMut(&[FileContent]) -> Result<S, E> + Send + 'static,
    {
        let signals = Arc::new(Signals::default());
        let mut notice = if options.inotify { Notice::new(Arc::clone(&signals)) } else { None };
        let reading = read_and_follow(&source, notice.as_mut());
        let rescan_after = rescan_after(&reading, options.rescan_interval);
        let files = reading.complete().map_err(StartError::Unreadable)?;
        let summary = loader(&files).map_err(StartError::Refused)?.to_string();
        tracing::info!(%source, files = files.len(), generation = 1, %summary, "loaded");

        let mut progress = Progress::new(source.members_may_go());
        progress.accepted(files, Instant::now());
        let status = Status { generation: 1, loaded_at: SystemTime::now(), summary, problem: None, problems: 0 };
        let monitor = Monitor::new(status, Arc::clone(&signals));
        let loader: Loader =
            Box::new(move |files| loader(files).map(|said| said.to_string()).map_err(|why| why.to_string()));
        let engine = Engine {
            source,
            notice,
            signals: Arc::clone(&signals),
            monitor: monitor.clone(),
            progress,
            loader,
            rescan_interval: options.rescan_interval,
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || engine.run(rescan_after));
        Ok(Self { monitor, signals, thread: Some(thread.map_err(StartError::Thread)?) })
    }

    /// A handle that reads the status and asks for reloads.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }
}

impl Drop for Watcher {
    /// Returns when the loader can no longer be called.
    fn drop(&mut self) {
        self.signals.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics; there is nothing to hear from it.
            let _ = thread.join();
        }
    }
}
