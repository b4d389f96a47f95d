//! `portcullis proxy`: wiring, on one page. What it does is in the crates it wires.

mod credentials;
mod ends;
mod policies;
mod sandbox;
mod status;

use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use portcullis_admin::Serves;
use portcullis_proxy::changes::changes;
use portcullis_proxy::drain::{DrainTrigger, drain};
use portcullis_proxy::{World, engine};
use portcullis_settings::Settings;
use portcullis_telemetry::{Metrics, Own, Service, log, panics};

use self::status::Status;
use crate::commands::config;

/// `sysexits.h` EX_DATAERR: a policy or a certificate cannot be used.
const BAD_INPUT: u8 = 65;
/// `sysexits.h` EX_NOPERM: the system does not let us.
const NO_PERMISSION: u8 = 77;
/// `sysexits.h` EX_CONFIG: the configuration cannot be used.
const BAD_CONFIG: u8 = 78;

/// Why the proxy does not start: an exit code and what to tell.
pub(crate) struct Refusal {
    code: u8,
    message: String,
}

impl Refusal {
    fn new(code: u8, message: impl Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

/// Runs the proxy until it is told to end.
pub(crate) fn run(config: &Path, format: log::Format, level: &str) -> ExitCode {
    match start(config, format, level) {
        Ok(code) => code,
        Err(refusal) => {
            crate::output::note(&format!("error: {}", refusal.message.trim_end()));
            ExitCode::from(refusal.code)
        }
    }
}

fn start(config: &Path, format: log::Format, level: &str) -> Result<ExitCode, Refusal> {
    portcullis_sandbox::dumps::forbid()
        .map_err(|error| Refusal::new(1, format!("cannot forbid core dumps: {error}")))?;
    let settings = read_settings(config)?;
    log::init(format, level).map_err(|error| Refusal::new(64, error))?;
    panics::log();
    let failed = |error: anyhow::Error| Refusal::new(1, format!("{error:#}"));
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), own(&settings)).context("metrics").map_err(failed)?;
    let workers = settings.workers.and_then(NonZeroUsize::new).unwrap_or_else(processors);
    // Everything is bound before the sandbox, in which nothing can be, and the sandbox is entered before the first thread.
    let bound = engine::bind(&settings, workers).map_err(|error| not_bound(&error))?;
    let admin = bind_admin(&settings).map_err(failed)?;
    sandbox::enter(&settings);
    let (announcer, changes) = changes();

    let policies = policies::watch(&settings, &metrics, announcer.clone())?;
    let credentials = credentials::watch(&settings, announcer.clone())?;
    let (trigger, token) = drain(announcer);

    let status = Arc::new(Status::new(&policies, &credentials, metrics.clone(), token.clone()));
    let monitors = [policies.monitor(), credentials.monitor()];
    serve_admin(admin, &status).map_err(failed)?;
    log_start(&settings, &policies.effective.load(), workers);
    let world =
        Arc::new(World::new(settings, policies.effective.clone(), credentials.reader.clone(), changes, metrics, token));
    let engine = bound.start(&world).context("cannot start the data plane").map_err(failed)?;

    status.started();
    let forced = wait_for_the_end(&world.settings, &trigger, &monitors).map_err(failed)?;
    engine.join();
    drop((policies, credentials));
    tracing::info!(forced, "ended");
    Ok(ExitCode::from(if forced { 3 } else { 0 }))
}

/// Ourselves, as the labels of the metrics have it.
fn own(settings: &Settings) -> Own {
    let workload = &settings.workload;
    Own {
        id: settings.own_id.clone(),
        name: workload.name.clone(),
        namespace: workload.namespace.clone(),
        labels: workload.labels.clone(),
        service: Service::new(&settings.service, &workload.namespace),
    }
}

fn not_bound(error: &engine::BindError) -> Refusal {
    Refusal::new(if error.is_denied() { NO_PERMISSION } else { 1 }, error)
}

fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Reads the configuration; every mistake of it is told in one run.
fn read_settings(path: &Path) -> Result<Settings, Refusal> {
    match config::load(path) {
        Ok(Ok(settings)) => Ok(settings),
        Ok(Err(problems)) => {
            Err(Refusal::new(BAD_CONFIG, format!("bad configuration\n{}", config::lines(path, &problems))))
        }
        Err(error) => Err(Refusal::new(BAD_CONFIG, format!("{error:#}"))),
    }
}

/// The admin addresses, bound, with what each of them serves.
type Admin = Vec<(TcpListener, Serves)>;

fn bind_admin(settings: &Settings) -> anyhow::Result<Admin> {
    let wanted = [
        ("admin", settings.admin, Serves::All),
        ("health", settings.health, Serves::Health),
        ("metrics", settings.metrics, Serves::Metrics),
    ];
    let mut listeners = Vec::new();
    for (field, address, serves) in wanted {
        if let Some(address) = address {
            listeners.push((admin_listener(address).with_context(|| format!("{field}.listen"))?, serves));
        }
    }
    Ok(listeners)
}

/// Serves the admin addresses in a thread and a runtime of their own, so that no load delays `/healthz/ready`.
fn serve_admin(listeners: Admin, status: &Arc<Status>) -> anyhow::Result<()> {
    if listeners.is_empty() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let state: Arc<dyn portcullis_admin::State> = Arc::<Status>::clone(status);
    let work = move || {
        runtime.block_on(async move {
            let mut servers = tokio::task::JoinSet::new();
            for (listener, serves) in listeners {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(servers.spawn(portcullis_admin::serve(listener, serves, Arc::clone(&state)))),
                    Err(error) => tracing::error!(%error, "cannot serve an admin address"),
                }
            }
            while servers.join_next().await.is_some() {}
        });
    };
    thread::Builder::new().name("admin".to_owned()).spawn(work)?;
    Ok(())
}

fn admin_listener(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The start-up lines: who we are, and the mode of each port with the policy that decided it.
fn log_start(settings: &Settings, policy: &portcullis_policy::EffectivePolicy, workers: NonZeroUsize) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), identity = %settings.own_id, workload = %settings.workload.name,
        namespace = %settings.workload.namespace, workers, "portcullis"
    );
    if settings.identity.is_none() {
        tracing::warn!(
            "no identity is configured, so whatever would have to be terminated is refused; see identity.files"
        );
    }
    policies::log_modes(settings, policy, None);
    for upstream in &settings.outbound.upstreams {
        let mode = match &upstream.mode {
            portcullis_settings::RouteMode::Mtls(_) => "mtls",
            portcullis_settings::RouteMode::Plaintext => "plaintext",
        };
        tracing::info!(listen = %upstream.listen, address = %upstream.address, mode, "outbound");
    }
}

/// Waits for a signal, drains, and says whether it took force.
fn wait_for_the_end(
    settings: &Settings,
    trigger: &DrainTrigger,
    monitors: &[Option<portcullis_watch::Monitor>; 2],
) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ends::until_ended(settings.drain_grace, trigger, monitors))
}
