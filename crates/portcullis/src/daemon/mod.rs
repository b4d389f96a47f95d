//! `portcullis proxy`: reads the configuration, binds, builds, spawns, waits for requests and drains, in this order in [`run`].
//! The work itself is in the crates that it calls.

mod admin;
mod admin_socket;
mod admin_state;
mod admin_token;
mod agent;
mod attachment;
mod background;
mod candidates;
mod change_log;
mod client_names;
mod config_file;
mod credentials;
mod effective;
mod exceptions;
mod expiry_warning;
mod file_mode;
mod format;
mod forward_clock;
mod free_memory;
mod fresh;
mod gateway;
mod identity_files;
mod in_force;
mod kubernetes;
mod ledger;
mod offline;
mod originators;
mod otlp;
mod own_networks;
mod pages;
mod policies;
mod publisher;
mod sandbox;
mod services;
mod sets;
mod shutdown;
mod source_status;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_admin::State as _;
use portcullis_config::{GatewayTls, IdentitySource, RouteMode, Settings, UpstreamMode, defaults};
use portcullis_dns::{Names, Resolver};
use portcullis_istio::AgentEnvironment;
use portcullis_policy::EffectivePolicy;
use portcullis_proxy::beats::Beats;
use portcullis_proxy::changes::change_channel;
use portcullis_proxy::drain::{DrainTrigger, drain};
use portcullis_proxy::{ProxyParts, ProxyState, engine, limits};
use portcullis_telemetry::{AccessLog, AccessOutputs, LocalWorkload, Metrics, Service, log, panics};

pub(crate) use self::offline::{capture_rules, certificate_page, mode, policies_page};

use self::admin_state::{AdminState, Parts};
use self::attachment::Attachment;
use self::background::Background;
use self::change_log::ChangeLog;
use self::client_names::ClientNames;
use self::config_file::ConfigFile;
use self::credentials::CredentialSource;
use self::format::StartTime;
use self::gateway::GatewayFiles;
use self::policies::Policies;
use self::services::Services;
use self::shutdown::{AdminRequests, Request, Requests};
use crate::build_info::VERSION;
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::systemd::ServiceManager;

/// The log options of the command line.
pub(crate) struct Logging {
    pub(crate) format: log::Format,
    pub(crate) level: String,
    pub(crate) access: AccessLog,
}

/// Runs the proxy until it is asked to shut down, or its holder has another network namespace.
pub(crate) fn run(config: Option<&Path>, holder: Option<PathBuf>, logging: &Logging) -> Outcome {
    portcullis_sandbox::dumps::forbid().context("cannot forbid core dumps")?;
    let start_time = StartTime::now();

    // Configuration.
    let (settings, config_file) = configuration(config)?;
    let workers = settings.workers.and_then(NonZeroUsize::new).unwrap_or_else(processors);

    // Bind everything before the sandbox, in which no port can be bound.
    let listeners = engine::bind(&settings, workers).map_err(not_bound)?;
    let admin_listeners = admin::bind(&settings)?;
    let own_networks = own_networks::own_networks();

    // Enter the sandbox before the first thread, which would stay outside of it. Logging has a thread.
    let manager = Arc::new(ServiceManager::from_environment());
    let log = confine(&settings, &config_file, logging)?;
    manager.log();

    // Build.
    let (exporter, sink) = otlp::start(&settings)?;
    let outputs = AccessOutputs { form: logging.access, output: log.output.clone(), sink };
    let metrics =
        Metrics::with_outputs(VERSION, metric_labels(&settings), outputs, ledger::new(&settings)).context("metrics")?;
    let ledger_writer = ledger::write(&settings, &metrics);
    let (notifier, changes) = change_channel();
    let resolver = Resolver::system().context("DNS")?;
    let names = Names::new(resolver.clone());
    let services = Arc::new(Services::new(&settings, Arc::clone(&names)));
    let change_log = ChangeLog::default();
    let policies = policies::watch(&settings, &metrics, &services, &change_log, notifier.clone())?;
    let credentials = credentials::watch(&settings, &policies.set, &metrics, notifier.clone())?;
    let gateway = gateway::watch(&settings)?;
    let (drain_trigger, drain_token) = drain(notifier.clone());
    let drain_trigger = Arc::new(drain_trigger);
    let admin_requests = Arc::<AdminRequests>::default();
    let attachment = Attachment::new(holder);
    let buffers = limits::buffers(&settings);
    let admin_state = Arc::new(AdminState::new(Parts {
        start_time,
        settings: &settings,
        buffers: &buffers,
        config_file: &config_file,
        workers: workers.get(),
        policies: &policies,
        credentials: &credentials,
        gateway: &gateway,
        metrics: &metrics,
        drain: &drain_trigger,
        requests: &admin_requests,
        attachment: &attachment,
        log: log.control.clone(),
        changes: &change_log,
    }));

    let client_names = ClientNames {
        ledger: metrics.ledger.clone(),
        services: services.published(),
        names: Arc::clone(&names),
        resolver: settings.ledger.reverse_dns.then_some(resolver),
    };

    // Spawn.
    let admin_socket = admin::serve(admin_listeners, Arc::<AdminState>::clone(&admin_state))?;
    // Before a connection is served: without policies a port would be as open as mesh.defaultMode has it.
    if let Some(monitor) = policies.kubernetes()
        && !kubernetes::wait_until_loaded(&monitor)?
    {
        tracing::info!(pending = monitor.pending(), "ended before the policies were known");
        return Ok(Exit::Ok);
    }
    log_start(&settings, &policies.effective.load(), workers);
    let (grace, app) = (settings.drain_grace, settings.workload.name.clone());
    let state = Arc::new(ProxyState::new(ProxyParts {
        settings,
        policy: policies.effective.clone(),
        services: services.published(),
        names,
        credentials: credentials.reader.clone(),
        gateway_servers: Arc::clone(&gateway.servers),
        notifier: notifier.clone(),
        changes,
        metrics: metrics.clone(),
        drain: drain_token,
        buffers: Arc::clone(&buffers),
        own_networks,
    }));
    let engine = listeners.start(&state).context("cannot start the data plane")?;
    admin_state.started();

    // Serve requests until one asks to shut down; then drain, until all connections have ended, the grace period is over or
    // a second request comes.
    let control = Control {
        drain: &drain_trigger,
        policies: &policies,
        credentials: &credentials,
        gateway: &gateway,
        config: &config_file,
        attachment: &attachment,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let background = Background {
        notifier,
        in_force: Arc::clone(&policies.in_force),
        publisher: Arc::clone(&policies.publisher),
        services,
        credentials: credentials.reader.clone(),
        client_names,
        change_log,
        metrics: metrics.clone(),
        drain: Arc::clone(&drain_trigger),
        buffers,
        attachment: attachment.clone(),
        app,
    };
    let (forced, exit) = runtime.block_on(async {
        background.spawn();
        let mut requests = Requests::listen(&admin_requests)?;
        // Once signals are handled: a manager may send one as soon as it knows that this is ready.
        tokio::spawn(follow_readiness(Arc::clone(&manager), admin_state, engine.beats.clone()));
        anyhow::Ok(control.serve_and_drain(&mut requests, &manager, grace).await)
    })?;

    engine.join();
    // After the last connection has ended.
    drop(ledger_writer);
    metrics.log_suppressed();
    drop((policies, credentials, gateway, admin_socket));
    // After the last connection, whose line is to be sent as well.
    if let Some(exporter) = exporter {
        exporter.finish(defaults::OTLP_FLUSH);
    }
    tracing::info!(forced, "ended");
    Ok(exit)
}

/// Reads the configuration, and the environment variables that count as part of it.
fn configuration(config: Option<&Path>) -> Result<(Settings, Arc<ConfigFile>), Failure> {
    let source = ConfigSource::required(config)?;
    let loaded = source.load()?;
    let mut settings = loaded.settings;
    apply_environment(&mut settings)?;
    Ok((settings, Arc::new(ConfigFile::new(source, loaded.text))))
}

/// Enters the sandbox, and starts the log, which says what the sandbox could not do.
fn confine(settings: &Settings, config_file: &ConfigFile, logging: &Logging) -> Result<log::Log, Failure> {
    ledger::make_folder(settings);
    let sandbox = sandbox::enter(settings, config_file.source().file());
    let log = log::init(logging.format, &logging.level).map_err(|error| Failure::message(Exit::Usage, error))?;
    panics::log();
    sandbox.log();
    Ok(log)
}

/// What requests act upon while the proxy runs.
struct Control<'a> {
    drain: &'a Arc<DrainTrigger>,
    policies: &'a Policies,
    credentials: &'a CredentialSource,
    gateway: &'a GatewayFiles,
    config: &'a ConfigFile,
    attachment: &'a Attachment,
}

impl Control<'_> {
    /// Serves until a request asks to shut down, and drains. Returns whether connections had to be cut, and the exit code.
    async fn serve_and_drain(
        &self,
        requests: &mut Requests<'_>,
        manager: &ServiceManager,
        grace: Duration,
    ) -> (bool, Exit) {
        tokio::select! {
            () = self.serve_until_shutdown(requests) => {}
            // No connection has survived.
            () = self.attachment.replaced() => {
                return (shutdown::drain(self.drain, grace, async {}).await, Exit::Failure);
            }
        }
        manager.stopping().await;
        let cut = async {
            tokio::select! {
                () = self.serve_until_shutdown(requests) => {}
                () = self.attachment.lost() => {}
            }
        };
        let forced = shutdown::drain(self.drain, grace, cut).await;
        tokio::select! {
            () = self.serve_until_shutdown(requests) => {}
            () = self.attachment.outlast_holder() => {}
        }
        (forced, if forced { Exit::DrainForced } else { Exit::Ok })
    }

    async fn serve_until_shutdown(&self, requests: &mut Requests<'_>) {
        loop {
            match requests.next().await {
                Request::Shutdown => return,
                Request::DrainListeners => {
                    tracing::info!(connections = self.drain.live(), "draining the inbound listeners");
                    let trigger = Arc::clone(self.drain);
                    tokio::spawn(async move { shutdown::close_inbound(&trigger).await });
                }
                Request::Reload => {
                    tracing::info!("reload requested by signal");
                    self.policies.reload_now();
                    self.credentials.status.reload_now();
                    self.gateway.monitor().iter().for_each(portcullis_reload::Monitor::reload_now);
                    self.config.log_change();
                }
            }
        }
    }
}

/// Tells the service manager whether the proxy is ready, and that its workers run.
async fn follow_readiness(manager: Arc<ServiceManager>, state: Arc<AdminState>, beats: Beats) {
    let mut watch = beats.watch();
    let late = || {
        let late: Vec<_> = watch.late().iter().map(|worker| format!("worker {worker}")).collect();
        (!late.is_empty()).then(|| late.join(", "))
    };
    manager.follow(|| state.ready(), late).await;
}

/// This workload's metric labels.
fn metric_labels(settings: &Settings) -> LocalWorkload {
    let workload = &settings.workload;
    LocalWorkload {
        id: settings.own_id.clone(),
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
        service: Service::new(&settings.service, &workload.namespace),
    }
}

fn not_bound(error: engine::BindError) -> Failure {
    Failure::new(if error.is_denied() { Exit::NoPermission } else { Exit::Failure }, error)
}

fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Kubernetes' variables, Istio's, which apply to certificates from a CA only, and OpenTelemetry's.
fn apply_environment(settings: &mut Settings) -> Result<(), Failure> {
    kubernetes::apply_environment(settings)?;
    if let Some(IdentitySource::Ca(ca)) = settings.identity.as_mut().map(|identity| &mut identity.source) {
        ca.environment =
            AgentEnvironment::read(|name| std::env::var(name).ok()).map_err(|errors| bad_environment(&errors))?;
    }
    settings.telemetry.apply_environment(|name| std::env::var(name).ok()).map_err(|errors| bad_environment(&errors))
}

fn bad_environment(errors: &[impl ToString]) -> Failure {
    let lines: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Failure::message(Exit::BadConfig, format!("bad environment\n{}", lines.join("\n")))
}

/// The start-up lines: the identity, and the mode of each port with the policy that decided it.
fn log_start(settings: &Settings, policy: &EffectivePolicy, workers: NonZeroUsize) {
    tracing::info!(
        version = VERSION, identity = %settings.own_id, workload = %settings.workload.name,
        namespace = %settings.workload.namespace, workers, "portcullis"
    );
    if settings.identity.is_none() {
        tracing::warn!(
            "no identity is configured, so connections that would be terminated are refused; see `identity`"
        );
    }
    effective::log_modes(settings, policy, None);
    effective::log_authorization(policy, None);
    for upstream in &settings.outbound.upstreams {
        let mode = mode_word(&upstream.target.mode);
        tracing::info!(listen = %upstream.listen, address = %upstream.target.address, mode, "outbound");
    }
    for listener in &settings.gateway.listeners {
        let client = match &listener.tls {
            None => "plaintext",
            Some(GatewayTls { client_ca: None, .. }) => "TLS",
            Some(GatewayTls { client_ca: Some(_), .. }) => "TLS with client certificates",
        };
        for route in &listener.routes {
            let mode = mode_word(&route.target.mode);
            tracing::info!(listen = %listener.listen, client, address = %route.target.address, mode, "gateway");
        }
    }
}

const fn mode_word(mode: &UpstreamMode) -> &'static str {
    match mode {
        UpstreamMode::Fixed(RouteMode::Mtls(_)) => "mtls",
        UpstreamMode::Fixed(RouteMode::Hbone(_)) => "hbone",
        UpstreamMode::Fixed(RouteMode::Plaintext) => "plaintext",
        UpstreamMode::Auto { .. } => "auto",
    }
}
