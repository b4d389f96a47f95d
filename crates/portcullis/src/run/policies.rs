//! The policy folder: watched, parsed as a whole, and put in force as a whole.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_policy::{EffectivePolicy, PolicySet, Source};
use portcullis_settings::Settings;
use portcullis_telemetry::Metrics;
use portcullis_watch::{FileContent, Monitor, Options, StartError, Watcher};

use super::{BAD_INPUT, Refusal};

/// The effective policy in force, and the watcher that keeps it so.
pub(super) struct Policies {
    pub(super) effective: Arc<ArcSwap<EffectivePolicy>>,
    watcher: Option<Watcher>,
}

impl Policies {
    pub(super) fn monitor(&self) -> Option<Monitor> {
        self.watcher.as_ref().map(Watcher::monitor)
    }
}

/// Loads the folder and watches it. A set with any error in it changes nothing.
pub(super) fn watch(settings: &Settings, metrics: &Metrics) -> Result<Policies, Refusal> {
    let none = resolve(settings, &PolicySet::default());
    let effective = Arc::new(ArcSwap::from_pointee(none));
    let Some(folder) = settings.policies.clone() else {
        return Ok(Policies { effective, watcher: None });
    };
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    let (target, metrics, settings) = (Arc::clone(&effective), metrics.clone(), settings.clone());
    let mut first = true;
    let loader = move |files: &[FileContent]| {
        let result = load(&settings, files);
        let label = if result.is_ok() { "ok" } else { "error" };
        metrics.reloads.with(&["policies", label]).add(1);
        let (policy, summary) = result?;
        if !std::mem::take(&mut first) {
            log_modes(&settings, &policy);
        }
        target.store(Arc::new(policy));
        Ok::<_, String>(summary)
    };
    let watcher =
        Watcher::start(portcullis_watch::Source::Folder(folder), options, loader).map_err(|error| match error {
            StartError::Thread(error) => Refusal::new(1, format!("cannot start a thread: {error}")),
            other => Refusal::new(BAD_INPUT, other),
        })?;
    Ok(Policies { effective, watcher: Some(watcher) })
}

fn load(settings: &Settings, files: &[FileContent]) -> Result<(EffectivePolicy, String), String> {
    let sources: Vec<Source> = files
        .iter()
        .map(|file| Source { file: file.path.display().to_string(), text: file.content.to_vec() })
        .collect();
    let loaded = PolicySet::load(&sources);
    if !loaded.errors.is_empty() {
        let lines: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(lines.join("\n"));
    }
    let workload = &settings.workload;
    let here = loaded.set.warnings_for(&settings.mesh.policy, &workload.namespace, &workload.labels);
    for warning in loaded.warnings.iter().chain(&here) {
        tracing::warn!(%warning, "policy");
    }
    let summary = format!("{} documents in {} files", loaded.documents, files.len());
    Ok((resolve(settings, &loaded.set), summary))
}

fn resolve(settings: &Settings, set: &PolicySet) -> EffectivePolicy {
    let workload = &settings.workload;
    EffectivePolicy::resolve(set, &settings.mesh.policy, &workload.namespace, &workload.labels)
}

/// One line for each port that the configuration or a policy names: its mode, and the policy that decided it.
pub(super) fn log_modes(settings: &Settings, policy: &EffectivePolicy) {
    let mut ports: Vec<u16> = settings.inbound.ports.iter().map(|port| port.port).collect();
    ports.extend(policy.ports());
    ports.sort_unstable();
    ports.dedup();
    for port in ports {
        let decided = policy.mode(port);
        tracing::info!(port, mode = decided.mode.as_str(), policy = %decided.by.label(), "inbound port");
    }
}
