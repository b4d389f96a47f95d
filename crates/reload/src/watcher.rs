//! Starting and stopping: the first load in the caller's thread, then a thread of its own.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;

use crate::engine::{Engine, Loader, read_and_follow, rescan_after};
use crate::error::ReadErrors;
use crate::events::Events;
use crate::file::FileContent;
use crate::file_set::FileSet;
use crate::inbox::Inbox;
use crate::origin::Origins;
use crate::reconciler::Reconciler;
use crate::status::{Monitor, ReloadStatus};

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

/// Why watching did not start. There is no last good set yet, so every error is fatal.
#[derive(Debug, Error)]
pub enum StartError<E> {
    /// The set cannot be read.
    #[error("{0}")]
    Unreadable(ReadErrors),
    /// The loader refuses it.
    #[error("{0}")]
    Refused(E),
    /// The system has no thread or file descriptor left.
    #[error("cannot start a thread to watch files: {0}")]
    Thread(io::Error),
}

/// Watches a set of files until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    monitor: Monitor,
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Loads the set once in the caller's thread, and then watches it.
    ///
    /// `loader` gets every set whose content is new, whole. It validates, swaps, and returns a short summary; or it refuses
    /// and changes nothing. It runs in the watcher's thread and must not wait for the watcher.
    ///
    /// # Errors
    /// If the set cannot be read, is refused by the loader, or no thread can be started.
    pub fn start<S, E, L>(set: FileSet, options: Options, mut loader: L) -> Result<Self, StartError<E>>
    where
        S: Display,
        E: Display,
        L: FnMut(&[FileContent]) -> Result<S, E> + Send + 'static,
    {
        let inbox = Arc::new(Inbox::new().map_err(StartError::Thread)?);
        let mut events = if options.inotify { Events::new(Arc::clone(&inbox)) } else { None };
        let mut reading = read_and_follow(&set, events.as_mut());
        let rescan_after = rescan_after(&reading, options.rescan_interval);
        let read = std::mem::take(&mut reading.origins);
        let files = reading.complete().map_err(StartError::Unreadable)?;
        let summary = loader(&files).map_err(StartError::Refused)?.to_string();
        tracing::info!(source = %set, files = files.len(), generation = 1, %summary, "loaded");

        let mut origins = Origins::default();
        origins.update(&files, read);
        let mut reconciler = Reconciler::new(set.allows_removal());
        reconciler.accepted(files, Instant::now());
        let status = ReloadStatus { generation: 1, loaded_at: SystemTime::now(), summary, problem: None, problems: 0 };
        let monitor = Monitor::new(status, Arc::clone(&inbox));
        let loader: Loader = Box::new(move |files| {
            let result = loader(files);
            result.map(|summary| summary.to_string()).map_err(|error| error.to_string())
        });
        let engine = Engine {
            set,
            events,
            inbox: Arc::clone(&inbox),
            monitor: monitor.clone(),
            reconciler,
            origins,
            loader,
            rescan_interval: options.rescan_interval,
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || engine.run(rescan_after));
        Ok(Self { monitor, inbox, thread: Some(thread.map_err(StartError::Thread)?) })
    }

    /// A handle that reads the status and requests reloads.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }
}

impl Drop for Watcher {
    /// Returns when the loader can no longer be called.
    fn drop(&mut self) {
        self.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches panics; its result has no meaning.
            let _ = thread.join();
        }
    }
}
