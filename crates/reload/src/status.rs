//! The state of a watcher, and requests to it while it runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::inbox::Inbox;

/// The state of a set of files.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    /// How often a set was put in force; 1 after the start.
    pub generation: u64,
    /// When the set that is in force was loaded.
    pub loaded_at: SystemTime,
    /// The loader's summary of it.
    pub summary: String,
    /// What is wrong with the files as they are now; while this is set, an older set is in force.
    pub problem: Option<Problem>,
    /// How many problems there have been since the start.
    pub problems: u64,
}

/// Why the files as they are now were not put in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The reason of the first [`ReadError`](crate::ReadError), or `refused` if the loader refused the set.
    pub reason: &'static str,
    /// Every error, in words.
    pub message: String,
    /// Since when the files have been bad, whatever the reasons were.
    pub since: SystemTime,
}

/// Reads the status and requests reloads. Cheap to clone; does not keep the watcher running.
#[derive(Clone, Debug)]
pub struct Monitor {
    status: Arc<Mutex<ReloadStatus>>,
    inbox: Arc<Inbox>,
}

impl Monitor {
    pub(crate) fn new(status: ReloadStatus, inbox: Arc<Inbox>) -> Self {
        Self { status: Arc::new(Mutex::new(status)), inbox }
    }

    /// The current state.
    #[must_use]
    pub fn status(&self) -> ReloadStatus {
        self.lock().clone()
    }

    /// Reads the files at once, and offers a refused set to the loader again. Returns before that is done; a second request
    /// does no harm.
    pub fn reload_now(&self) {
        self.inbox.request();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, ReloadStatus> {
        // Only whole values are stored, so what a panic left behind is still a status.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
