//! The API server as a source of policies: where it is, its metrics and pages, and the wait for its first answer.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use portcullis_config::{HostPort, Settings};
use portcullis_kubernetes::{Monitor, Source, SourceError, SourceParts, WatchState};
use portcullis_telemetry::ReloadMetrics;
use portcullis_tls::Clock;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use super::format::{system_time, unix_seconds};
use super::sets::{self, Sets};
use crate::build_info::VERSION;
use crate::exit::{Exit, Failure};

/// How often the log says what is waited for.
const SAY: Duration = Duration::from_secs(10);

/// What Kubernetes puts into the environment of every pod.
const HOST_VARIABLE: &str = "KUBERNETES_SERVICE_HOST";
const PORT_VARIABLE: &str = "KUBERNETES_SERVICE_PORT";

/// Fills in the address of the API server where the configuration has none.
///
/// # Errors
/// If the environment has none either.
pub(super) fn apply_environment(settings: &mut Settings) -> Result<(), Failure> {
    let Some(kubernetes) = settings.kubernetes.as_mut().filter(|kubernetes| kubernetes.address.is_none()) else {
        return Ok(());
    };
    let variable = |name| std::env::var(name).ok();
    let host = variable(HOST_VARIABLE).filter(|host| !host.is_empty());
    let port = variable(PORT_VARIABLE).and_then(|port| port.parse().ok());
    let Some((host, port)) = host.zip(port) else {
        let message = format!(
            "kubernetes: there is no address; write kubernetes.address, or start in a pod, which has ${HOST_VARIABLE} and ${PORT_VARIABLE}"
        );
        return Err(Failure::message(Exit::BadConfig, message));
    };
    kubernetes.address = Some(HostPort { host, port });
    Ok(())
}

/// Starts to watch the API server, if one is configured. Returns before it has answered.
pub(super) fn watch(settings: &Settings, sets: &Arc<Mutex<Sets>>) -> Result<Option<Source>, Failure> {
    let Some(kubernetes) = &settings.kubernetes else { return Ok(None) };
    let Some(address) = kubernetes.address.clone() else { return Ok(None) };
    let parts = SourceParts {
        settings: kubernetes,
        address,
        namespaces: [&settings.workload.namespace, &settings.mesh.policy.root_namespace],
        version: VERSION,
        clock: Clock::system(),
    };
    let sets = Arc::clone(sets);
    let source = Source::start(&parts, move |objects| sets::lock(&sets).offer_objects(objects));
    source.map(Some).map_err(|error| match error {
        SourceError::Thread(_) => Failure::new(Exit::Failure, error),
        SourceError::UserAgent(_) => Failure::new(Exit::BadConfig, error),
    })
}

/// Waits until the API server's objects are in force. `false`: a signal came first, and the process is to end.
///
/// # Errors
/// If signals cannot be handled.
pub(super) fn wait_until_loaded(monitor: &Monitor) -> anyhow::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut say = interval(SAY);
        say.tick().await;
        loop {
            tokio::select! {
                () = monitor.loaded() => return Ok(true),
                _ = terminate.recv() => return Ok(false),
                _ = interrupt.recv() => return Ok(false),
                _ = say.tick() => {
                    tracing::warn!(pending = monitor.pending(), "no listener is served until the policies are known");
                }
            }
        }
    })
}

/// Sets the metrics.
pub(super) fn refresh(metrics: &ReloadMetrics, monitor: &Monitor) {
    let status = monitor.status();
    let last = status.loaded_at.map_or(0.0, unix_seconds);
    metrics.set(status.generation, status.problems, last, status.problem.is_some() || status.loaded_at.is_none());
}

/// What `/policies` shows.
pub(super) fn page(settings: &Settings, monitor: &Monitor) -> Value {
    let status = monitor.status();
    let address = settings.kubernetes.as_ref().and_then(|kubernetes| kubernetes.address.as_ref());
    let watch = |watch: &portcullis_kubernetes::WatchStatus| {
        let detail = match &watch.state {
            WatchState::Failed { message, .. } => Some(message.as_str()),
            _ => None,
        };
        json!({
            "kind": watch.kind.name(), "namespace": watch.namespace, "version": watch.version,
            "state": watch.state.as_str(), "detail": detail,
        })
    };
    let age = |since: SystemTime| SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
    json!({
        "address": address.map(ToString::to_string),
        "copyFolder": settings.kubernetes.as_ref().and_then(|kubernetes| kubernetes.copy_folder.as_ref()),
        "generation": status.generation,
        "loadedAt": status.loaded_at.map(system_time),
        "summary": status.summary,
        "objects": status.objects,
        "copyWrittenAt": status.copy_written_at.map(portcullis_tls::utc),
        "problem": status.problem.as_ref().map(|problem| json!({
            "reason": problem.reason, "message": problem.message, "since": system_time(problem.since),
            "ageSeconds": age(problem.since),
        })),
        "watches": status.watches.iter().map(watch).collect::<Vec<_>>(),
    })
}
