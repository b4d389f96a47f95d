//! `policies.candidates`: folders whose policies are evaluated for each connection, and not enforced.
//!
//! An invalid candidate stops nothing: the last valid one goes on being evaluated, and the log says what is wrong.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_config::Settings;
use portcullis_policy::{EffectivePolicy, PolicySet, Shadow, ShadowKind, Source};
use portcullis_reload::{FileContent, FileSet, Options, StartError, Watcher};

use super::identity_files::not_started;
use super::in_force::InForce;
use crate::exit::{Exit, Failure};

/// Watches every candidate.
pub(super) fn watch(settings: &Settings, in_force: &Arc<InForce>) -> Result<Vec<Watcher>, Failure> {
    let one = |(index, folder): (usize, &PathBuf)| {
        let (in_force, name, settings) = (Arc::clone(in_force), name(&settings.candidates, folder), settings.clone());
        let options = Options { rescan_interval: settings.rescan, ..Options::default() };
        let loader = move |files: &[FileContent]| {
            let policy = match read(&settings, files) {
                Ok(policy) => policy,
                // Not a failure of the watcher, which would end the start: nothing of a candidate is enforced.
                Err(error) => {
                    tracing::error!(candidate = %name, error, "invalid candidate policies; the last valid ones are evaluated");
                    return Ok("invalid".to_owned());
                }
            };
            tracing::info!(candidate = %name, files = files.len(), "candidate policies are evaluated and not enforced");
            in_force.set_candidate(index, Shadow { name: name.as_str().into(), kind: ShadowKind::Candidate, policy });
            Ok::<_, String>(format!("files: {}", files.len()))
        };
        Watcher::start(FileSet::Folder(folder.clone()), options, loader).map_err(|error| match error {
            thread @ StartError::Thread(_) => not_started("policies.candidates", thread),
            other => Failure::message(Exit::BadInput, format!("policies.candidates[{index}]: {other}")),
        })
    };
    settings.candidates.iter().enumerate().map(one).collect()
}

/// The name in logs and metrics: that of the folder, or its path where another candidate has the same name.
fn name(all: &[PathBuf], folder: &Path) -> String {
    let is_unique = all.iter().filter(|other| other.file_name() == folder.file_name()).count() == 1;
    let name = folder.file_name().filter(|_| is_unique).unwrap_or(folder.as_os_str());
    portcullis_yaml::printable(&name.to_string_lossy())
}

fn read(settings: &Settings, files: &[FileContent]) -> Result<EffectivePolicy, String> {
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
        tracing::warn!(%warning, "candidate policy");
    }
    // Its dry-run policies would decide nothing if the candidate were in force, so they do not count.
    Ok(EffectivePolicy::evaluate(
        &loaded.set,
        &settings.mesh.policy,
        &workload.namespace,
        &workload.labels,
        portcullis_policy::Evaluation::Enforced,
    ))
}
