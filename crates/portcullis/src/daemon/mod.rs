//! `portcullis proxy`: wiring, on one page. What it does is in the crates it wires.

mod admin;
mod credentials;
mod ends;
mod expiry;
mod issued;
mod own_file;
mod pages;
mod policies;
mod private;
mod progress;
mod sandbox;
mod status;
mod token;

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use portcullis_config::{Environment, IdentitySource, Settings};
use portcullis_proxy::changes::changes;
use portcullis_proxy::drain::drain;
use portcullis_proxy::{World, engine};
use portcullis_telemetry::{AccessLog, Metrics, Own, Service, log, panics};
use portcullis_tls::CredentialReader;
use tokio::time::sleep;

use self::ends::{Sources, Wishes};
use self::own_file::OwnFile;
use self::pages::process::Birth;
use self::status::{Parts, Status};
use crate::commands::config::Place;

/// `sysexits.h` EX_USAGE: nobody said what to run with.
const USAGE: u8 = 64;
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

/// What the command line says of logs.
pub(crate) struct Logging {
    pub(crate) format: log::Format,
    pub(crate) level: String,
    pub(crate) access: AccessLog,
}

/// Runs the proxy until it is told to end.
pub(crate) fn run(config: Option<&Path>, logging: &Logging) -> ExitCode {
    match start(config, logging) {
        Ok(code) => code,
        Err(refusal) => {
            crate::output::note(&format!("error: {}", refusal.message.trim_end()));
            ExitCode::from(refusal.code)
        }
    }
}

fn start(config: Option<&Path>, logging: &Logging) -> Result<ExitCode, Refusal> {
    portcullis_sandbox::dumps::forbid()
        .map_err(|error| Refusal::new(1, format!("cannot forbid core dumps: {error}")))?;
    let (birth, (settings, own_file)) = (Birth::now(), read_settings(config)?);
    let own_file = Arc::new(own_file);
    let failed = |error: anyhow::Error| Refusal::new(1, format!("{error:#}"));
    let workers = settings.workers.and_then(NonZeroUsize::new).unwrap_or_else(processors);
    // Everything is bound before the sandbox, in which nothing can be, and the sandbox is entered before the first thread.
    let bound = engine::bind(&settings, workers).map_err(|error| not_bound(&error))?;
    let admin = admin::bind(&settings).map_err(failed)?;
    let sandbox = sandbox::enter(&settings, own_file.place().file());
    let log = log::init(logging.format, &logging.level).map_err(|error| Refusal::new(64, error))?;
    panics::log();
    sandbox.tell();
    let metrics =
        Metrics::with_access_log(env!("CARGO_PKG_VERSION"), own(&settings), logging.access, log.output.clone());
    let metrics = metrics.context("metrics").map_err(failed)?;
    let (announcer, changes) = changes();

    let policies = policies::watch(&settings, &metrics, announcer.clone())?;
    let credentials = credentials::watch(&settings, &policies.set, announcer.clone())?;
    let (trigger, token) = drain(announcer.clone());
    let (trigger, wishes) = (Arc::new(trigger), Arc::<Wishes>::default());

    let parts = Parts {
        settings: &settings,
        own_file: &own_file,
        workers: workers.get(),
        policies: &policies,
        credentials: &credentials,
        metrics: &metrics,
        drain: &trigger,
        wishes: &wishes,
        log: log.control.clone(),
    };
    let status = Arc::new(Status::new(birth, parts));
    admin::serve(admin, Arc::<Status>::clone(&status)).map_err(failed)?;
    log_start(&settings, &policies.effective.load(), workers);
    let world = Arc::new(World::new(
        settings,
        policies.effective.clone(),
        credentials.reader.clone(),
        (announcer, changes),
        metrics,
        token,
    ));
    let engine = bound.start(&world).context("cannot start the data plane").map_err(failed)?;

    status.started();
    let reload = || {
        policies.monitor().iter().for_each(portcullis_reload::Monitor::reload_now);
        credentials.progress.reload_now();
    };
    let requests = Sources { trigger: &trigger, wishes: &wishes, reload: &reload, own_file: &own_file };
    let forced = wait_for_the_end(&world, credentials.reader.clone(), requests).map_err(failed)?;
    engine.join();
    world.metrics.tell_held_back();
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
fn read_settings(named: Option<&Path>) -> Result<(Settings, OwnFile), Refusal> {
    let unreadable = |error: anyhow::Error| Refusal::new(BAD_CONFIG, format!("{error:#}"));
    let place = Place::required(named).map_err(|error| Refusal::new(USAGE, format!("{error:#}")))?;
    let text = place.read().map_err(unreadable)?;
    match place.parse(&text) {
        Ok(mut settings) => {
            environment(&mut settings)?;
            Ok((settings, OwnFile::new(place, text)))
        }
        Err(problems) => Err(Refusal::new(BAD_CONFIG, format!("bad configuration\n{}", place.lines(&problems)))),
    }
}

/// Istio's variables, where they mean something.
fn environment(settings: &mut Settings) -> Result<(), Refusal> {
    if let Some(IdentitySource::Ca(ca)) = settings.identity.as_mut().map(|identity| &mut identity.source) {
        ca.environment = Environment::read(|name| std::env::var(name).ok())
            .map_err(|wrong| Refusal::new(BAD_CONFIG, format!("bad environment\n{}", wrong.join("\n"))))?;
    }
    Ok(())
}

/// The start-up lines: who we are, and the mode of each port with the policy that decided it.
fn log_start(settings: &Settings, policy: &portcullis_policy::EffectivePolicy, workers: NonZeroUsize) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), identity = %settings.own_id, workload = %settings.workload.name,
        namespace = %settings.workload.namespace, workers, "portcullis"
    );
    if settings.identity.is_none() {
        tracing::warn!("no identity is configured, so whatever would have to be terminated is refused; see `identity`");
    }
    policies::log_modes(settings, policy, None);
    for upstream in &settings.outbound.upstreams {
        let mode = match &upstream.mode {
            portcullis_config::RouteMode::Mtls(_) => "mtls",
            portcullis_config::RouteMode::Plaintext => "plaintext",
        };
        tracing::info!(listen = %upstream.listen, address = %upstream.address, mode, "outbound");
    }
}

/// Waits for a signal, drains, and says whether it took force.
fn wait_for_the_end(world: &Arc<World>, reader: CredentialReader, sources: Sources<'_>) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::spawn(expiry::tell(reader));
        tokio::spawn(tell_held_back(world.metrics.clone()));
        ends::until_ended(world.settings.drain_grace, sources).await
    })
}

/// Says each second how many lines of refused connections were not written.
async fn tell_held_back(metrics: Metrics) {
    loop {
        sleep(Duration::from_secs(1)).await;
        metrics.tell_held_back();
    }
}
