//! The status of the source of credentials, for readiness, metrics, pages and reloads.

use portcullis_api::{IdentitySource, Problem};
use portcullis_reload::{Monitor, Watcher};
use portcullis_telemetry::{Metrics, ReloadMetrics};
use portcullis_tls::{CredentialReader, Unavailable};
use serde_json::{Value, json};

use super::format::{system_time, timestamp, unix_seconds};

/// The source and its monitor. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum SourceStatus {
    /// No identity is configured.
    None,
    /// Files are watched.
    Files(Monitor),
    /// An agent requests certificates.
    Agent {
        /// The key in `identity` that names the source.
        key: &'static str,
        /// Its renewals and failures.
        monitor: portcullis_ca_client::RenewalMonitor,
        /// The files with bundles of foreign domains, if there are any.
        files: Option<Monitor>,
    },
}

impl SourceStatus {
    pub(super) fn agent(
        key: &'static str,
        monitor: portcullis_ca_client::RenewalMonitor,
        watcher: Option<&Watcher>,
    ) -> Self {
        Self::Agent { key, monitor, files: watcher.map(Watcher::monitor) }
    }

    /// SIGHUP: reads the files again, asks for a new certificate.
    pub(super) fn reload_now(&self) {
        match self {
            Self::None => {}
            Self::Files(monitor) => monitor.reload_now(),
            Self::Agent { monitor, files, .. } => {
                monitor.renew_now();
                files.iter().for_each(Monitor::reload_now);
            }
        }
    }

    /// Why the proxy is not ready as far as its identity goes.
    pub(super) fn pending(&self, reader: &CredentialReader) -> Option<String> {
        let why = match (self, reader.current()) {
            (Self::None, _) => {
                return Some("identity (none configured: connections that would be terminated are refused)".to_owned());
            }
            (_, Ok(_)) => return None,
            (_, Err(why)) => why,
        };
        let Self::Agent { monitor, .. } = self else { return Some(format!("credentials ({why})")) };
        let status = monitor.status();
        let problem = status.problem.map_or_else(|| "no answer yet".to_owned(), |problem| problem.message);
        let waiting = format!("waiting for {}: {problem}", status.source);
        Some(match why {
            Unavailable::NotLoaded => format!("credentials ({waiting})"),
            Unavailable::Expired { .. } => format!("credentials ({why}; {waiting})"),
        })
    }

    /// Sets the metrics that are computed when they are scraped.
    pub(super) fn refresh(&self, metrics: &Metrics, reader: &CredentialReader) {
        match self {
            Self::None => {}
            Self::Files(monitor) => refresh_reload_metrics(&metrics.credentials, monitor),
            Self::Agent { monitor, .. } => {
                let status = monitor.status();
                let failures = status.failures.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
                if let Some(renewed_at) = status.renewed_at {
                    let is_stale = status.problem.is_some();
                    metrics.credentials.set(reader.generation(), failures, unix_seconds(renewed_at), is_stale);
                }
                metrics.identity.renewals(status.renewals, &status.failures, status.consecutive_failures);
                metrics.identity.bundle_polls(status.bundle_polls, &status.bundle_failures);
            }
        }
    }

    /// When the next certificate is asked for, in Unix time, where that is known.
    pub(super) fn renews_at_unix(&self) -> Option<i64> {
        match self {
            Self::None | Self::Files(_) => None,
            Self::Agent { monitor, .. } => monitor.status().renews_at_unix,
        }
    }

    /// What `/status` says of the source.
    pub(super) fn status(&self) -> IdentitySource {
        let problem = |reason: &str, message, since| Problem {
            reason: reason.to_owned(),
            message,
            since: Some(timestamp(since)),
        };
        match self {
            Self::None => IdentitySource::default(),
            Self::Files(monitor) => {
                let status = monitor.status();
                IdentitySource {
                    kind: Some("files".to_owned()),
                    name: "files".to_owned(),
                    renewed_at: Some(timestamp(status.loaded_at)),
                    consecutive_failures: 0,
                    problem: status.problem.map(|found| problem(found.reason, found.message, found.since)),
                }
            }
            Self::Agent { key, monitor, .. } => {
                let status = monitor.status();
                IdentitySource {
                    kind: Some((*key).to_owned()),
                    name: status.source,
                    renewed_at: status.renewed_at.map(timestamp),
                    consecutive_failures: status.consecutive_failures,
                    problem: status.problem.map(|found| problem(found.reason, found.message, found.since)),
                }
            }
        }
    }

    /// What `/certs` shows of the source.
    pub(super) fn page(&self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::Files(monitor) => {
                let status = monitor.status();
                json!({
                    "kind": "files",
                    "loadedAt": system_time(status.loaded_at),
                    "problem": status.problem.map(|problem| json!({
                        "reason": problem.reason, "message": problem.message, "since": system_time(problem.since),
                    })),
                })
            }
            Self::Agent { key, monitor, .. } => {
                let status = monitor.status();
                json!({
                    "kind": key,
                    "name": status.source,
                    "renewals": status.renewals,
                    "renewedAt": status.renewed_at.map(system_time),
                    "failures": status.failures,
                    "consecutiveFailures": status.consecutive_failures,
                    "bundlePolls": status.bundle_polls,
                    "bundleFailures": status.bundle_failures,
                    "problem": status.problem.map(|problem| json!({
                        "reason": problem.reason, "message": problem.message, "since": system_time(problem.since),
                    })),
                })
            }
        }
    }
}

/// Sets the metrics of a watched set of files.
pub(super) fn refresh_reload_metrics(metrics: &ReloadMetrics, monitor: &Monitor) {
    let status = monitor.status();
    metrics.set(status.generation, status.problems, unix_seconds(status.loaded_at), status.problem.is_some());
}
