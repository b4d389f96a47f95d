//! The state of the source, for readiness, metrics and pages.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use portcullis_manifest::ResourceKind;
use tokio::sync::watch;

use crate::failure::FailureReason;

/// The state of the source.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How often a set was put in force.
    pub generation: u64,
    /// When the set in force was put there; `None` while there is none.
    pub loaded_at: Option<SystemTime>,
    /// The loader's summary of it.
    pub summary: String,
    /// Objects of the set in force.
    pub objects: usize,
    /// The set in force began as a copy on disk, written at this time (Unix time, in seconds), and not everything was listed since.
    pub copy_written_at: Option<i64>,
    /// Why the set in force may not be what the cluster has.
    pub problem: Option<Problem>,
    /// How many problems there have been since the start.
    pub problems: u64,
    /// Each kind in each namespace.
    pub watches: Vec<WatchStatus>,
}

/// Why the set in force may not be what the cluster has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The first of the reasons.
    pub reason: &'static str,
    /// Every reason, in words.
    pub message: String,
    /// Since when there has been a problem, whatever the reasons were.
    pub since: SystemTime,
    /// See [`Found`].
    causes: BTreeSet<String>,
}

/// What is wrong now.
pub(crate) struct Found {
    /// The first of the reasons.
    pub(crate) reason: &'static str,
    /// Every reason, in words.
    pub(crate) message: String,
    /// What the log tells apart. An outage is one cause, however many watches notice it, and in whatever words.
    pub(crate) causes: BTreeSet<String>,
}

/// One kind in one namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatchStatus {
    /// The kind.
    pub kind: ResourceKind,
    /// The namespace.
    pub namespace: String,
    /// The served version that is used, once one was found.
    pub version: Option<&'static str>,
    /// Whether what is known is what the server has.
    pub state: WatchState,
}

/// Whether what is known of a kind in a namespace is what the server has.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum WatchState {
    /// It was not listed yet.
    #[default]
    Pending,
    /// It was listed, and each change arrives.
    Synced,
    /// The server does not have the kind; it is asked for again.
    NotInstalled,
    /// The last attempt failed; there is another one soon.
    Failed {
        /// What kind of failure it is.
        reason: FailureReason,
        /// In words.
        message: String,
    },
}

impl WatchState {
    /// The word in pages.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Synced => "synced",
            Self::NotInstalled => "not-installed",
            Self::Failed { reason, .. } => reason.as_str(),
        }
    }
}

/// Reads the status and requests new lists. Cheap to clone; does not keep the source running.
#[derive(Clone, Debug)]
pub struct Monitor {
    status: Arc<Mutex<Status>>,
    loaded: watch::Sender<bool>,
    relist: watch::Sender<u64>,
}

impl Monitor {
    pub(crate) fn new(relist: watch::Sender<u64>) -> Self {
        Self { status: Arc::default(), loaded: watch::Sender::new(false), relist }
    }

    /// The current state.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Lists everything again. Returns before that is done.
    pub fn reload_now(&self) {
        self.relist.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Returns when a set is in force.
    pub async fn loaded(&self) {
        // The sender is a part of this monitor, so it cannot be gone.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    /// What readiness waits for: a first set, or nothing.
    #[must_use]
    pub fn pending(&self) -> Option<String> {
        let status = self.lock();
        if status.loaded_at.is_some() {
            return None;
        }
        let why = status.problem.as_ref().map(|problem| problem.message.clone()).or_else(|| {
            status.watches.iter().find_map(|watch| match &watch.state {
                WatchState::Failed { message, .. } => Some(message.clone()),
                _ => None,
            })
        });
        Some(format!("policies (waiting for the API server: {})", why.unwrap_or_else(|| "no answer yet".to_owned())))
    }

    /// A set is in force.
    pub(crate) fn in_force(&self, summary: String, objects: usize) {
        let mut status = self.lock();
        status.generation = status.generation.saturating_add(1);
        status.loaded_at = Some(SystemTime::now());
        status.objects = objects;
        let generation = status.generation;
        tracing::info!(source = "kubernetes", objects, generation, %summary, "reloaded");
        status.summary = summary;
        drop(status);
        self.loaded.send_replace(true);
    }

    pub(crate) fn set_watches(&self, watches: Vec<WatchStatus>) {
        self.lock().watches = watches;
    }

    pub(crate) fn set_copy(&self, written_at: Option<i64>) {
        self.lock().copy_written_at = written_at;
    }

    /// Replaces the problem. Each new cause is logged once, and the end of the problem.
    pub(crate) fn set_problem(&self, found: Option<Found>) {
        let mut status = self.lock();
        let Some(Found { reason, message, causes }) = found else {
            if let Some(over) = status.problem.take() {
                tracing::info!(
                    source = "kubernetes",
                    cause = over.reason,
                    "the API server's objects are in force again"
                );
            }
            return;
        };
        let before = status.problem.take();
        let is_new = before.as_ref().is_none_or(|before| !causes.is_subset(&before.causes));
        let since = before.map_or_else(SystemTime::now, |before| before.since);
        let generation = status.generation;
        if is_new {
            let meanwhile =
                if generation == 0 { "no objects are in force yet" } else { "kept the last good objects in force" };
            tracing::error!(source = "kubernetes", generation, cause = reason, problem = %message, "{meanwhile}");
            status.problems = status.problems.saturating_add(1);
        }
        status.problem = Some(Problem { reason, message, since, causes });
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        // Only whole values are stored, so what a panic left behind is still a status.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
