//! What readiness and the metrics page answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_admin::State;
use portcullis_proxy::drain::{DrainToken, Phase};
use portcullis_telemetry::{Metrics, ReloadMetrics};
use portcullis_tls::CredentialReader;
use portcullis_watch::Monitor;

use super::credentials::Source;
use super::policies::Policies;

/// State behind the admin addresses.
pub(super) struct Status {
    started: AtomicBool,
    identity: bool,
    reader: CredentialReader,
    policies: Option<Monitor>,
    credentials: Option<Monitor>,
    metrics: Metrics,
    drain: DrainToken,
}

impl Status {
    pub(super) fn new(policies: &Policies, credentials: &Source, metrics: Metrics, drain: DrainToken) -> Self {
        Self {
            started: AtomicBool::new(false),
            identity: credentials.configured(),
            reader: credentials.reader.clone(),
            policies: policies.monitor(),
            credentials: credentials.monitor(),
            metrics,
            drain,
        }
    }

    /// The listeners are served.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    /// What is only worth knowing when somebody looks.
    fn refresh(&self) {
        set(&self.metrics.policies, self.policies.as_ref());
        set(&self.metrics.credentials, self.credentials.as_ref());
        if let Some(credentials) = self.reader.latest() {
            let now = seconds(SystemTime::now());
            #[allow(clippy::cast_precision_loss, reason = "times of this century are far below 2^53")]
            let left = |end: i64| end as f64 - now;
            self.metrics.set_expiry(left(credentials.not_after_unix()), left(credentials.root_not_after_unix()));
        }
    }
}

fn set(metrics: &ReloadMetrics, monitor: Option<&Monitor>) {
    if let Some(status) = monitor.map(Monitor::status) {
        metrics.set(status.generation, status.problems, seconds(status.loaded_at));
    }
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl State for Status {
    fn ready(&self) -> Result<(), String> {
        let mut pending = Vec::new();
        if !self.started.load(Ordering::Acquire) {
            pending.push("listeners".to_owned());
        }
        if !self.identity {
            pending.push("identity (none configured: whatever is to be terminated is refused)".to_owned());
        } else if let Err(why) = self.reader.current() {
            pending.push(format!("credentials ({why})"));
        }
        if self.drain.phase() != Phase::Running {
            pending.push("shutdown (draining)".to_owned());
        }
        if pending.is_empty() { Ok(()) } else { Err(pending.join(", ")) }
    }

    fn metrics(&self) -> String {
        self.refresh();
        self.metrics.encode().unwrap_or_else(|error| format!("# metrics cannot be written: {error}\n"))
    }
}
