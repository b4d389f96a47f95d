//! Watching the files of an identity: certificates, keys and trust bundles. They must be valid at the start; afterwards an
//! invalid change leaves the last good files in force.

use std::path::PathBuf;

use portcullis_config::Settings;
use portcullis_reload::{FileContent, Options, StartError, Watcher};
use portcullis_tls::{IdentityRules, MinVersion};

use crate::exit::{Exit, Failure};

/// The identity settings of the configuration.
pub(super) fn identity_rules(settings: &Settings) -> IdentityRules {
    IdentityRules {
        trust_domain: settings.mesh.trust_domain.clone(),
        aliases: settings.mesh.aliases.clone(),
        expected_own_id: settings.own_id.clone(),
        compat: settings.tls.compat,
        min_version: if settings.tls.allow_tls12 { MinVersion::Tls12 } else { MinVersion::Tls13 },
    }
}

/// Reads the files for the first time, and watches them from then on.
pub(super) fn watch_files(
    key: &str,
    settings: &Settings,
    paths: Vec<PathBuf>,
    loader: impl FnMut(&[FileContent]) -> Result<String, String> + Send + 'static,
) -> Result<Watcher, Failure> {
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    Watcher::start(portcullis_reload::FileSet::Files(paths), options, loader).map_err(|error| not_started(key, error))
}

/// Why files cannot be watched; `key` is the key of the configuration that names them.
pub(super) fn not_started(key: &str, error: StartError<String>) -> Failure {
    match error {
        StartError::Thread(error) => Failure::from(anyhow::Error::new(error).context("cannot start a thread")),
        StartError::Unreadable(error) => Failure::message(Exit::BadInput, format!("{key}: {error}")),
        refused @ StartError::Refused(_) => Failure::new(Exit::BadInput, refused),
    }
}
