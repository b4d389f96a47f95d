//! The renewal status of a source, for admin pages, metrics and readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::error::FetchError;

/// The renewal status of a source.
#[derive(Clone, Debug)]
pub struct RenewalStatus {
    /// What it is, in words: `the certificate authority at ca:15012`.
    pub source: String,
    /// Certificates put in force.
    pub renewals: u64,
    /// When the last one was put in force.
    pub renewed_at: Option<SystemTime>,
    /// When the next certificate is asked for, in Unix time; `None` where the source decides.
    pub renews_at_unix: Option<i64>,
    /// Attempts that brought no certificate, by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// How many in a row.
    pub consecutive_failures: u32,
    /// Why the last attempt failed; `None` if it did not.
    pub problem: Option<LastFailure>,
    /// Answers with the bundles in force.
    pub bundle_polls: u64,
    /// Attempts to get the bundles that failed, by reason.
    pub bundle_failures: BTreeMap<&'static str, u64>,
}

/// Why an attempt failed.
#[derive(Clone, Debug)]
pub struct LastFailure {
    /// The stable name.
    pub reason: &'static str,
    /// The error text.
    pub message: String,
    /// Since when there have been failures.
    pub since: SystemTime,
}

/// Reads the status, and can request a renewal. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RenewalMonitor {
    status: Arc<Mutex<RenewalStatus>>,
    renew_request: Arc<Notify>,
}

impl RenewalMonitor {
    pub(crate) fn new(source: String) -> Self {
        let status = RenewalStatus {
            source,
            renewals: 0,
            renewed_at: None,
            renews_at_unix: None,
            failures: BTreeMap::new(),
            consecutive_failures: 0,
            problem: None,
            bundle_polls: 0,
            bundle_failures: BTreeMap::new(),
        };
        Self { status: Arc::new(Mutex::new(status)), renew_request: Arc::default() }
    }

    /// The current status.
    #[must_use]
    pub fn status(&self) -> RenewalStatus {
        self.lock().clone()
    }

    /// Requests a renewal at once, whatever the schedule says.
    pub fn renew_now(&self) {
        self.renew_request.notify_one();
    }

    /// Waits until a renewal is requested.
    pub(crate) async fn renewal_requested(&self) {
        self.renew_request.notified().await;
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, RenewalStatus> {
        // Only whole values are stored, so what a panic left behind is still a status.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn renews_at(&self, unix: Option<i64>) {
        self.lock().renews_at_unix = unix;
    }

    pub(crate) fn renewed(&self) {
        let mut status = self.lock();
        status.renewals = status.renewals.saturating_add(1);
        status.renewed_at = Some(SystemTime::now());
        status.consecutive_failures = 0;
        status.problem = None;
    }

    pub(crate) fn failed(&self, error: &FetchError) {
        let mut status = self.lock();
        let count = status.failures.entry(error.reason()).or_default();
        *count = count.saturating_add(1);
        status.consecutive_failures = status.consecutive_failures.saturating_add(1);
        let since = status.problem.as_ref().map_or_else(SystemTime::now, |problem| problem.since);
        status.problem = Some(LastFailure { reason: error.reason(), message: error.to_string(), since });
    }

    pub(crate) fn polled(&self) {
        let mut status = self.lock();
        status.bundle_polls = status.bundle_polls.saturating_add(1);
    }

    pub(crate) fn poll_failed(&self, error: &FetchError) {
        let mut status = self.lock();
        let count = status.bundle_failures.entry(error.reason()).or_default();
        *count = count.saturating_add(1);
    }
}
