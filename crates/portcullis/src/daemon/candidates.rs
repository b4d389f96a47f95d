//! `policies.candidates`: folders whose policies are evaluated for each connection, and not enforced.
//!
//! An invalid candidate stops nothing: the last valid one goes on being evaluated, and the log says what is wrong.

use std::path::Path;
use std::sync::Arc;

use portcullis_config::Settings;
use portcullis_policy::{EffectivePolicy, PolicySet, Shadow, ShadowKind, Source};
use portcullis_reload::{FileContent, FileSet, Options, StartError, Watcher};

use super::identity_files::not_started;
use super::in_force::InForce;
use crate::exit::{Exit, Failure};

/// Watches every candidate.
pub(super) fn watch(settings: &Settings, in_force: &Arc<InForce>) -> Result<Vec<Watcher>, Failure> {
    let one = |(index, folder): (usize, &std::path::PathBuf)| {
        let (in_force, name, settings) = (Arc::clone(in_force), name(folder), settings.clone());
        let options = Options { rescan_interval: settings.rescan, ..Options::default() };
        let loader = move |files: &[FileContent]| {
            let policy = read(&settings, files)?;
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

/// The name in logs and metrics: that of the folder.
fn name(folder: &Path) -> String {
    folder.file_name().map_or_else(|| folder.display().to_string(), |name| name.to_string_lossy().into_owned())
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
    // As a whole: its dry-run policies are what they would be if the candidate were in force.
    Ok(EffectivePolicy::evaluate(
        &loaded.set,
        &settings.mesh.policy,
        &workload.namespace,
        &workload.labels,
        portcullis_policy::Evaluation::Enforced,
    ))
}
