//! What an operator can ask of a watcher while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::signals::Signals;

/// How a set of files stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// How often a set was put in force; 1 after the start.
    pub generation: u64,
    /// When the set that is in force was put there.
    pub loaded_at: SystemTime,
    /// What the loader said about it.
    pub summary: String,
    /// What is wrong with the files as they are now; while this is set, an older set is in force.
    pub problem: Option<Problem>,
    /// How many problems there have been since the start.
    pub problems: u64,
}

/// Why the files as they are now were not put in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The reason of the first [`ReadError`](crate::ReadError), or `refused` if the loader did not want the set.
    pub reason: &'static str,
    /// All that is known about it.
    pub message: String,
    /// Since when the files have been bad, whatever the reasons were.
    pub since: SystemTime,
}

/// Reads the status and asks for reloads; cheap to clone, and does not keep the watcher alive.
#[derive(Clone, Debug)]
pub struct Monitor {
    status: Arc<Mutex<Status>>,
    signals: Arc<Signals>,
}

impl Monitor {
    pub(crate) fn new(status: Status, signals: Arc<Signals>) -> Self {
        Self { status: Arc::new(Mutex::new(status)), signals }
    }

    /// How the files stand now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Looks at the files at once, and lets the loader judge a refused set again. Returns before that is done; asking
    /// twice does no harm.
    pub fn reload_now(&self) {
        self.signals.ask();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Status> {
        // Only whole values are stored, so what a panic left behind is still a status.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
