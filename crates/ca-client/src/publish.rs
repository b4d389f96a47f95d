//! Publishes the result of each attempt to the store, the status and the log.

use std::time::Duration;

use portcullis_tls::{CredentialReader, CredentialStore, Credentials, provider, utc};

use crate::error::FetchError;
use crate::log_throttle::LogThrottle;
use crate::status::RenewalMonitor;

/// For this long after our start the source may still be starting. Until then an unreachable source is not an error.
const STARTUP: Duration = Duration::from_secs(20);

/// Where an agent publishes its credentials, and a reader of the same store.
pub struct CredentialSink {
    /// The store.
    pub store: CredentialStore,
    /// Reads what the store holds.
    pub reader: CredentialReader,
}

/// Publishes credentials, and updates the renewal status and the log.
pub(crate) struct Publisher {
    sink: CredentialSink,
    monitor: RenewalMonitor,
    changed: Box<dyn Fn() + Send + Sync>,
    throttle: LogThrottle,
    poll_problem: Option<&'static str>,
    /// What was logged as waiting for the source's start.
    waiting: Option<&'static str>,
}

impl Publisher {
    pub(crate) fn new(sink: CredentialSink, monitor: RenewalMonitor, changed: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { sink, monitor, changed, throttle: LogThrottle::default(), poll_problem: None, waiting: None }
    }

    pub(crate) const fn reader(&self) -> &CredentialReader {
        &self.sink.reader
    }

    pub(crate) const fn monitor(&self) -> &RenewalMonitor {
        &self.monitor
    }

    /// A new certificate.
    pub(crate) fn publish(&mut self, credentials: Credentials) {
        self.in_force(credentials, "a new certificate is in force");
        self.monitor.renewed();
        if self.throttle.succeeded() {
            tracing::info!(source = %self.monitor.lock().source, "certificates are renewed again");
        }
    }

    /// The same certificate with other bundles.
    pub(crate) fn publish_bundles(&mut self, credentials: Credentials) {
        self.in_force(credentials, "other trust bundles are in force");
    }

    fn in_force(&mut self, credentials: Credentials, what: &'static str) {
        let valid_until = utc(credentials.not_after_unix());
        for warning in credentials.warnings() {
            tracing::warn!(%warning, "credentials");
        }
        let generation = self.sink.store.publish(credentials);
        (self.changed)();
        let source = &self.monitor.lock().source;
        tracing::info!(source, generation, valid_until, "{what}");
    }

    /// No new certificate; `retry` is when the next attempt is.
    pub(crate) fn failed(&mut self, now: Duration, error: &FetchError, retry: Option<Duration>) {
        self.monitor.failed(error);
        if now < STARTUP && error.may_be_startup() && self.sink.reader.latest().is_none() {
            if self.waiting.replace(error.reason()) != Some(error.reason()) {
                let source = &self.monitor.lock().source;
                tracing::info!(source, reason = error.reason(), problem = %error, "waiting for the source of certificates");
            }
            return;
        }
        if !self.throttle.failed(now, error.reason()) {
            return;
        }
        let status = self.monitor.status();
        let retry_seconds = retry.map_or(0.0, |retry| retry.as_secs_f64());
        let in_force = match self.sink.reader.current() {
            Ok(current) => format!("the old one serves until {}", utc(current.not_after_unix())),
            Err(why) => format!("{why}; no handshake succeeds"),
        };
        tracing::error!(
            source = status.source, reason = error.reason(), problem = %error, failures = status.consecutive_failures,
            in_force, retry_seconds, "no new certificate"
        );
    }

    /// An answer about bundles.
    pub(crate) fn polled(&mut self) {
        self.monitor.polled();
        self.poll_problem = None;
    }

    /// No answer about bundles; the old ones stay. Logged once for each reason.
    pub(crate) fn poll_failed(&mut self, error: &FetchError) {
        self.monitor.poll_failed(error);
        if self.poll_problem.replace(error.reason()) != Some(error.reason()) {
            let source = &self.monitor.lock().source;
            tracing::warn!(source, reason = error.reason(), problem = %error, "no new trust bundles; the old ones stay");
        }
    }
}

/// A seed that differs between workloads that start together.
pub(crate) fn jitter_seed() -> u64 {
    let mut seed = [0; 8];
    // Without randomness there is no TLS either; then the time has to do.
    if provider().secure_random.fill(&mut seed).is_err() {
        return u64::from(std::process::id());
    }
    u64::from_le_bytes(seed)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The levels of the lines that a publisher without credentials writes for these failures, at seconds after our start.
    fn levels(failures: &[(u64, &FetchError)]) -> Vec<String> {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || writer.clone()).finish();
        let (store, reader) = CredentialStore::new();
        let monitor = RenewalMonitor::new("localhost:15012".to_owned());
        let mut publisher = Publisher::new(CredentialSink { store, reader }, monitor, Box::new(|| ()));
        tracing::subscriber::with_default(subscriber, || {
            for (seconds, error) in failures {
                publisher.failed(Duration::from_secs(*seconds), error, None);
            }
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }

    #[test]
    fn an_unreachable_source_is_an_error_only_after_its_time_to_start() {
        let missing = FetchError::Local { reason: "token-file", message: String::new(), missing: true };
        let refused = FetchError::Connect("connection refused".to_owned());
        assert_eq!(levels(&[(0, &missing), (1, &missing), (2, &refused), (10, &refused), (19, &refused)]), ["INFO"; 2]);
        assert_eq!(levels(&[(0, &refused), (19, &refused), (20, &refused), (21, &refused)]), ["INFO", "ERROR"]);
    }

    #[test]
    fn a_source_that_answers_and_gives_nothing_is_an_error_at_once() {
        let tls = FetchError::Tls("unknown issuer".to_owned());
        let unreadable = FetchError::Local { reason: "token-file", message: String::new(), missing: false };
        for error in [&tls, &unreadable] {
            assert_eq!(levels(&[(0, error)]), ["ERROR"], "{error}");
        }
    }
}
