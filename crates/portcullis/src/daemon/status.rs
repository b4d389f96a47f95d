//! What the admin addresses answer and do: the content behind `portcullis_admin::State`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use portcullis_admin::{Change, Page, State, Token, TokenError};
use portcullis_config::Settings;
use portcullis_policy::{EffectivePolicy, PolicySet};
use portcullis_proxy::drain::{DrainTrigger, Phase};
use portcullis_proxy::limits;
use portcullis_reload::Monitor;
use portcullis_telemetry::log::Control;
use portcullis_telemetry::{Metrics, ReloadMetrics};
use portcullis_tls::CredentialReader;

use super::credentials::Source;
use super::ends::Wishes;
use super::own_file::OwnFile;
use super::pages::config::Derived;
use super::pages::process::{self, Birth};
use super::pages::{body, certs, config, connections, policies};
use super::policies::Policies;
use super::progress::Progress;
use super::token::TokenFile;

/// State behind the admin addresses.
pub(super) struct Status {
    birth: Birth,
    started: AtomicBool,
    settings: Settings,
    own_file: Arc<OwnFile>,
    derived: Derived,
    reader: CredentialReader,
    effective: Arc<ArcSwap<EffectivePolicy>>,
    set: Arc<ArcSwap<PolicySet>>,
    policies: Option<Monitor>,
    credentials: Progress,
    metrics: Metrics,
    drain: Arc<DrainTrigger>,
    wishes: Arc<Wishes>,
    log: Control,
    token: Option<TokenFile>,
}

/// What the pages show, by who knows it.
pub(super) struct Parts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) own_file: &'a Arc<OwnFile>,
    pub(super) workers: usize,
    pub(super) policies: &'a Policies,
    pub(super) credentials: &'a Source,
    pub(super) metrics: &'a Metrics,
    pub(super) drain: &'a Arc<DrainTrigger>,
    pub(super) wishes: &'a Arc<Wishes>,
    pub(super) log: Control,
}

impl Status {
    pub(super) fn new(birth: Birth, parts: Parts<'_>) -> Self {
        let Parts { settings, own_file, workers, policies, credentials, metrics, drain, wishes, log } = parts;
        let connections = limits::in_force(settings);
        let private = settings.identity.as_ref().is_some_and(|identity| identity.require_private_mode);
        Self {
            birth,
            own_file: Arc::clone(own_file),
            started: AtomicBool::new(false),
            derived: Derived { connections, handshakes: limits::handshakes(settings, connections), workers },
            reader: credentials.reader.clone(),
            effective: Arc::clone(&policies.effective),
            set: Arc::clone(&policies.set),
            policies: policies.monitor(),
            credentials: credentials.progress.clone(),
            metrics: metrics.clone(),
            drain: Arc::clone(drain),
            wishes: Arc::clone(wishes),
            log,
            token: settings.admin_token.clone().map(|path| TokenFile::new(path, private)),
            settings: settings.clone(),
        }
    }

    /// The listeners are served.
    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    /// What is only worth knowing when somebody looks.
    fn refresh(&self) {
        set(&self.metrics.policies, self.policies.as_ref());
        self.credentials.refresh(&self.metrics, &self.reader);
        if let Some(credentials) = self.reader.latest() {
            let now = seconds(SystemTime::now());
            #[allow(clippy::cast_precision_loss, reason = "times of this century are far below 2^53")]
            let left = |end: i64| end as f64 - now;
            self.metrics.set_expiry(left(credentials.not_after_unix()), left(credentials.root_not_after_unix()));
        }
    }

    fn policies(&self) -> serde_json::Value {
        let status = self.policies.as_ref().map(Monitor::status);
        policies::policies(&self.settings, &self.set.load(), status.as_ref())
    }

    fn server_info(&self) -> serde_json::Value {
        process::server_info(self.birth, process::state(self.is_started(), self.drain.phase()), &self.own_file)
    }
}

pub(super) fn set(metrics: &ReloadMetrics, monitor: Option<&Monitor>) {
    if let Some(status) = monitor.map(Monitor::status) {
        metrics.set(status.generation, status.problems, seconds(status.loaded_at));
    }
}

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl State for Status {
    fn ready(&self) -> Result<(), String> {
        let mut pending = Vec::new();
        if !self.is_started() {
            pending.push("listeners".to_owned());
        }
        pending.extend(self.credentials.pending(&self.reader));
        if self.drain.phase() != Phase::Running {
            pending.push("shutdown (draining)".to_owned());
        }
        if pending.is_empty() { Ok(()) } else { Err(pending.join(", ")) }
    }

    fn metrics(&self) -> String {
        self.refresh();
        self.metrics.encode().unwrap_or_else(|error| format!("# metrics cannot be written: {error}\n"))
    }

    fn about(&self) -> Vec<(&'static str, String)> {
        let workload = &self.settings.workload;
        vec![
            ("workload", format!("{}/{}", workload.namespace, workload.name)),
            ("identity", self.settings.own_id.to_string()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("state", process::state(self.is_started(), self.drain.phase()).to_owned()),
            ("readiness", self.ready().map_or_else(|pending| format!("pending: {pending}"), |()| "ready".to_owned())),
        ]
    }

    fn page(&self, page: Page) -> String {
        body(&match page {
            Page::ConfigDump => {
                let parts = [("serverInfo", self.server_info()), ("policies", self.policies())];
                let set = self.set.load();
                let policy = (&**self.effective.load(), set.mesh());
                config::config(&self.settings, self.derived, policy, &self.reader, parts)
            }
            Page::Certs => certs::certs(&self.reader, &self.credentials),
            Page::Listeners => process::listeners(&self.settings, self.drain.phase()),
            Page::Policies => self.policies(),
            Page::Connections => connections::connections(&self.metrics),
            Page::ServerInfo => self.server_info(),
        })
    }

    fn explain(&self, port: u16) -> String {
        body(&policies::explain(&self.settings, &self.set.load(), port))
    }

    fn log_filter(&self) -> String {
        self.log.filter().to_string()
    }

    fn set_log_filter(&self, words: &str) -> Result<String, String> {
        self.log.change(words).map(|filter| filter.to_string())
    }

    fn change(&self, change: Change) {
        match change {
            Change::DrainListeners => {
                // Here and now, so that whoever asks next already sees it.
                self.drain.advance(Phase::Unready);
                self.wishes.drain_listeners();
            }
            Change::Quit => self.wishes.quit(),
        }
    }

    fn token(&self) -> Result<Option<Token>, TokenError> {
        self.token.as_ref().map(TokenFile::read).transpose()
    }
}
