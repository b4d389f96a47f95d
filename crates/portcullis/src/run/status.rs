//! What readiness and the metrics page answer.

use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_admin::State;
use portcullis_proxy::drain::{DrainToken, Phase};
use portcullis_telemetry::Metrics;
use portcullis_tls::CredentialReader;

use super::credentials::Source;

/// State behind the admin addresses.
pub(super) struct Status {
    started: AtomicBool,
    identity: bool,
    reader: CredentialReader,
    metrics: Metrics,
    drain: DrainToken,
}

impl Status {
    pub(super) fn new(credentials: &Source, metrics: Metrics, drain: DrainToken) -> Self {
        Self {
            started: AtomicBool::new(false),
            identity: credentials.configured(),
            reader: credentials.reader.clone(),
            metrics,
            drain,
        }
    }

    /// The listeners are served.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Release);
    }
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
        self.metrics.encode().unwrap_or_else(|error| format!("# metrics cannot be written: {error}\n"))
    }
}
