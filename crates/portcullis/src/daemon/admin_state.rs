//! What the admin addresses answer and do: the implementation of `portcullis_admin::State`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_admin::{Change, Page, RecentQuery, State, Token, TokenError, Views};
use portcullis_api::{Changes, Observations, ProxyInfo, Status};
use portcullis_config::Settings;
use portcullis_dashboard::{Sidecar, View};
use portcullis_policy::{EffectivePolicy, PolicySet};
use portcullis_proxy::buffers::Buffers;
use portcullis_proxy::drain::{DrainTrigger, Phase};
use portcullis_proxy::{GatewayServers, limits};
use portcullis_reload::Monitor;
use portcullis_telemetry::Metrics;
use portcullis_telemetry::log::Control;
use portcullis_tls::CredentialReader;
use serde_json::json;

use super::admin_token::TokenFile;
use super::attachment::Attachment;
use super::change_log::ChangeLog;
use super::config_file::ConfigFile;
use super::credentials::CredentialSource;
use super::exceptions;
use super::format::{StartTime, unix_seconds};
use super::forward_clock::ForwardClock;
use super::fresh::Fresh;
use super::gateway::{self, GatewayFiles};
use super::kubernetes;
use super::pages::config::Derived;
use super::pages::status::{StatusParts, status};
use super::pages::{body, certs, config, connections, dashboard, observations, policies, process};
use super::policies::Policies;
use super::publisher::Publisher;
use super::shutdown::AdminRequests;
use super::source_status::{SourceStatus, refresh_reload_metrics};
use crate::build_info::VERSION;

/// State behind the admin addresses.
pub(super) struct AdminState {
    start_time: StartTime,
    started: AtomicBool,
    settings: Settings,
    buffers: Arc<Buffers>,
    config_file: Arc<ConfigFile>,
    derived: Derived,
    reader: CredentialReader,
    effective: Arc<ArcSwap<EffectivePolicy>>,
    publisher: Arc<Publisher>,
    clock: Arc<ForwardClock>,
    set: Arc<ArcSwap<PolicySet>>,
    policies: Option<Monitor>,
    kubernetes: Option<portcullis_kubernetes::Monitor>,
    hash: Arc<ArcSwapOption<String>>,
    credentials: SourceStatus,
    gateway: Option<Monitor>,
    gateway_servers: Arc<GatewayServers>,
    metrics: Metrics,
    drain: Arc<DrainTrigger>,
    requests: Arc<AdminRequests>,
    attachment: Attachment,
    log: Control,
    changes: ChangeLog,
    shown: Fresh<View>,
    status: Fresh<Status>,
    token: Option<TokenFile>,
}

/// The parts of the daemon that the pages show or change.
pub(super) struct Parts<'a> {
    pub(super) start_time: StartTime,
    pub(super) settings: &'a Settings,
    pub(super) buffers: &'a Arc<Buffers>,
    pub(super) config_file: &'a Arc<ConfigFile>,
    pub(super) workers: usize,
    pub(super) policies: &'a Policies,
    pub(super) credentials: &'a CredentialSource,
    pub(super) gateway: &'a GatewayFiles,
    pub(super) metrics: &'a Metrics,
    pub(super) drain: &'a Arc<DrainTrigger>,
    pub(super) requests: &'a Arc<AdminRequests>,
    pub(super) attachment: &'a Attachment,
    pub(super) log: Control,
    pub(super) changes: &'a ChangeLog,
}

impl AdminState {
    pub(super) fn new(parts: Parts<'_>) -> Self {
        let Parts {
            start_time,
            settings,
            buffers,
            config_file,
            workers,
            policies,
            credentials,
            gateway,
            metrics,
            drain,
            requests,
            attachment,
            log,
            changes,
        } = parts;
        let connections = limits::connections(settings);
        let private = settings.identity.as_ref().is_some_and(|identity| identity.require_private_mode);
        Self {
            start_time,
            buffers: Arc::clone(buffers),
            config_file: Arc::clone(config_file),
            started: AtomicBool::new(false),
            derived: Derived { connections, handshakes: limits::handshakes(settings, connections), workers },
            reader: credentials.reader.clone(),
            effective: Arc::clone(&policies.effective),
            set: Arc::clone(&policies.set),
            publisher: Arc::clone(&policies.publisher),
            clock: Arc::clone(&policies.clock),
            policies: policies.monitor(),
            kubernetes: policies.kubernetes(),
            hash: Arc::clone(&policies.hash),
            credentials: credentials.status.clone(),
            gateway: gateway.monitor(),
            gateway_servers: Arc::clone(&gateway.servers),
            metrics: metrics.clone(),
            drain: Arc::clone(drain),
            requests: Arc::clone(requests),
            attachment: attachment.clone(),
            log,
            changes: changes.clone(),
            shown: Fresh::default(),
            status: Fresh::default(),
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

    /// Sets the metrics that are computed when they are scraped.
    fn refresh(&self) {
        if let Some(policies) = &self.policies {
            refresh_reload_metrics(&self.metrics.policies, policies);
        }
        if let Some(monitor) = &self.kubernetes {
            kubernetes::refresh(&self.metrics.kubernetes, monitor);
        }
        self.metrics.set_break_glass(self.publisher.break_glass_seconds());
        self.metrics.buffers.set(self.buffers.used(), self.buffers.limited());
        self.credentials.refresh(&self.metrics, &self.reader);
        if let Some(monitor) = &self.gateway {
            gateway::refresh(&self.metrics, monitor, &self.gateway_servers, unix_seconds(SystemTime::now()));
        }
        let now = unix_seconds(SystemTime::now());
        #[allow(clippy::cast_precision_loss, reason = "times of dates are far below 2^53")]
        let left = |end: i64| end as f64 - now;
        let ends = exceptions::ends(&self.settings, &self.set.load());
        self.metrics.set_exceptions(ends.iter().map(|(policy, end)| (policy.as_str(), left(*end))));
        if let Some(credentials) = self.reader.latest() {
            self.metrics.set_expiry(left(credentials.not_after_unix()), left(credentials.root_not_after_unix()));
        }
    }

    /// The set in force, at this time.
    fn set_now(&self) -> Arc<PolicySet> {
        let set = self.set.load_full();
        // Without any, all times are alike, and a large set is not copied.
        if set.break_glass().is_empty() { set } else { Arc::new(PolicySet::clone(&set).at(self.clock.now())) }
    }

    fn policies(&self) -> serde_json::Value {
        let status = self.policies.as_ref().map(Monitor::status);
        let mut page =
            policies::policies(&self.settings, &self.set_now(), status.as_ref(), self.hash.load_full().as_deref());
        if let (Some(monitor), serde_json::Value::Object(fields)) = (&self.kubernetes, &mut page) {
            fields.insert("kubernetes".to_owned(), kubernetes::page(&self.settings, monitor));
        }
        page
    }

    fn buffers(&self) -> serde_json::Value {
        json!({ "held": self.buffers.used(), "limitedConnections": self.buffers.limited() })
    }

    fn server_info(&self) -> serde_json::Value {
        let state = process::state(self.is_started(), self.drain.phase());
        process::server_info(self.start_time, state, &self.config_file, &self.proxy_info())
    }

    fn observations(&self) -> Observations {
        observations::observations(self.proxy_info(), &self.settings, &self.effective.load(), &self.metrics)
    }

    fn status(&self) -> Status {
        // Without a folder and an API server there is only what the configuration has.
        let has_set = self.policies.is_some() || self.kubernetes.is_some();
        let services = (!has_set).then(|| PolicySet::assemble(&self.settings.services).set);
        let set = self.set.load();
        status(StatusParts {
            proxy: self.proxy_info(),
            pending: self.pending(),
            settings: &self.settings,
            config_file: &self.config_file,
            identity: self.credentials.status(),
            set: services.as_ref().unwrap_or(&set),
            metrics: &self.metrics,
        })
    }

    /// What readiness waits for.
    fn pending(&self) -> Vec<String> {
        let mut pending = Vec::new();
        if !self.is_started() {
            pending.push("listeners".to_owned());
        }
        pending.extend(self.kubernetes.as_ref().and_then(portcullis_kubernetes::Monitor::pending));
        pending.extend(self.attachment.pending());
        pending.extend(self.credentials.pending(&self.reader));
        if self.drain.phase() != Phase::Running {
            pending.push("shutdown (draining)".to_owned());
        }
        pending
    }

    fn changes(&self) -> Changes {
        Changes { proxy: self.proxy_info(), changes: self.changes.list() }
    }

    fn proxy_info(&self) -> ProxyInfo {
        let state = process::state(self.is_started(), self.drain.phase());
        observations::proxy_info(&self.settings, self.start_time, state, SystemTime::now())
    }
}

impl Views for AdminState {
    fn view(&self) -> Arc<View> {
        self.shown.get_or_make(|| self.make_view())
    }
}

impl AdminState {
    fn make_view(&self) -> View {
        let refused = RecentQuery { denied: true, ..RecentQuery::default() };
        let proxy = self.proxy_info();
        let sidecar = Sidecar {
            recent: observations::recent(proxy.clone(), &self.metrics, &refused),
            certificates: dashboard::certificate(&proxy, &self.reader).into_iter().collect(),
            changes: self.changes(),
            observations: self.observations(),
        };
        dashboard::view_of(&proxy, sidecar)
    }
}

impl State for AdminState {
    fn ready(&self) -> Result<(), String> {
        let pending = self.pending();
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
            ("version", VERSION.to_owned()),
            ("state", process::state(self.is_started(), self.drain.phase()).to_owned()),
            ("readiness", self.ready().map_or_else(|pending| format!("pending: {pending}"), |()| "ready".to_owned())),
        ]
    }

    fn page(&self, page: Page) -> String {
        body(&match page {
            Page::ConfigDump => {
                let set = self.set.load();
                let in_force = config::InForce {
                    derived: self.derived,
                    policy: &self.effective.load(),
                    mesh: set.mesh(),
                    credentials: &self.reader,
                    source: &self.credentials,
                };
                let parts =
                    [("serverInfo", self.server_info()), ("policies", self.policies()), ("buffers", self.buffers())];
                config::config(&self.settings, &in_force, parts)
            }
            Page::Certs => certs::certs(&self.reader, &self.credentials),
            Page::Listeners => process::listeners(&self.settings, self.drain.phase()),
            Page::Policies => self.policies(),
            Page::Connections => connections::connections(&self.metrics),
            Page::Observations => return body(&self.observations()),
            Page::Changes => return body(&self.changes()),
            Page::Status => return body(&*self.status.get_or_make(|| self.status())),
            Page::ServerInfo => self.server_info(),
        })
    }

    fn recent(&self, query: &RecentQuery) -> String {
        body(&observations::recent(self.proxy_info(), &self.metrics, query))
    }

    fn explain(&self, port: u16) -> String {
        body(&policies::explain(&self.settings, &self.set_now(), port))
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
                // At once, so that the next request already sees it.
                self.drain.advance(Phase::Unready);
                self.requests.drain_listeners();
            }
            Change::Quit => self.requests.shutdown(),
        }
    }

    fn token(&self) -> Result<Option<Token>, TokenError> {
        self.token.as_ref().map(TokenFile::read).transpose()
    }
}
