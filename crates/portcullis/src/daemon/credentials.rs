//! Certificate, key and bundles, from the source that the configuration names: validated and published as one set.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_ca_client::CredentialSink;
use portcullis_config::{IdentityFiles, IdentitySource, Settings};
use portcullis_identity::TrustDomain;
use portcullis_policy::PolicySet;
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_reload::{FileContent, FileSet, Watcher};
use portcullis_telemetry::Metrics;
use portcullis_tls::{Clock, CredentialFiles, CredentialReader, CredentialStore, Credentials, IdentityRules, utc};

use super::agent::{self, AgentStart};
use super::file_mode::SecretFileMode;
use super::identity_files::{identity_rules, watch_files};
use super::source_status::SourceStatus;
use crate::exit::Failure;

/// The credentials in force, and what renews them.
pub(super) struct CredentialSource {
    pub(super) reader: CredentialReader,
    pub(super) status: SourceStatus,
    /// Watches until it is dropped.
    _watcher: Option<Watcher>,
}

/// Starts the source. Without `identity` the store stays empty, and no connection can be terminated.
///
/// `set` may name the key type, where the configuration does not. Files must be there and good. A CA or a SPIFFE agent is
/// asked in the background, while the proxy already runs.
pub(super) fn watch(
    settings: &Settings,
    set: &Arc<ArcSwap<PolicySet>>,
    metrics: &Metrics,
    changed: ChangeNotifier,
) -> Result<CredentialSource, Failure> {
    let (store, reader) = CredentialStore::new();
    let Some(identity) = &settings.identity else {
        return Ok(CredentialSource { reader, status: SourceStatus::None, _watcher: None });
    };
    let sink = CredentialSink { store, reader: reader.clone() };
    let private = identity.require_private_mode;
    let (status, watcher) = match &identity.source {
        IdentitySource::Files(own) => {
            let watcher = files(settings, own, SecretFileMode::new("private key", private), sink.store, changed)?;
            (SourceStatus::Files(watcher.monitor()), Some(watcher))
        }
        IdentitySource::Ca(ca) => agent::from_ca(AgentStart { settings, sink, changed }, ca, set, private, metrics)?,
        IdentitySource::WorkloadApi(api) => agent::from_workload_api(AgentStart { settings, sink, changed }, api)?,
    };
    Ok(CredentialSource { reader, status, _watcher: watcher })
}

fn files(
    settings: &Settings,
    own: &IdentityFiles,
    mut key_mode: SecretFileMode,
    mut store: CredentialStore,
    changed: ChangeNotifier,
) -> Result<Watcher, Failure> {
    let (rules, domains) = (identity_rules(settings), foreign_domains(settings));
    let loader = move |files: &[FileContent]| {
        let credentials = validate(files, &domains, &rules, |key| key_mode.check(key))?;
        let not_after = credentials.not_after_unix();
        let generation = store.publish(credentials);
        changed.notify();
        Ok::<_, String>(format!("credentials generation {generation}, valid until {}", utc(not_after)))
    };
    watch_files("identity.files", settings, paths(settings, own), loader)
}

/// The files as they are now.
///
/// # Errors
/// Why the proxy would not start with them.
pub(super) fn read_once(settings: &Settings, own: &IdentityFiles, private: bool) -> Result<Credentials, String> {
    let files = FileSet::Files(paths(settings, own)).read().complete().map_err(|errors| errors.to_string())?;
    let mut key_mode = SecretFileMode::new("private key", private);
    validate(&files, &foreign_domains(settings), &identity_rules(settings), |key| key_mode.check(key))
}

fn paths(settings: &Settings, own: &IdentityFiles) -> Vec<PathBuf> {
    let paths = [&own.certificate, &own.private_key, &own.trust_bundle];
    paths.into_iter().chain(settings.foreign_bundles()).cloned().collect()
}

fn foreign_domains(settings: &Settings) -> Vec<TrustDomain> {
    settings.mesh.trust_bundles.iter().map(|(domain, _)| domain.clone()).collect()
}

fn validate(
    files: &[FileContent],
    domains: &[TrustDomain],
    rules: &IdentityRules,
    check_mode: impl FnOnce(&FileContent) -> Result<(), String>,
) -> Result<Credentials, String> {
    let [certificate, key, bundle, federated @ ..] = files else {
        return Err("certificate, privateKey and trustBundle are three files".to_owned());
    };
    check_mode(key)?;
    let federated = domains.iter().cloned().zip(federated.iter().map(|file| file.content.to_vec())).collect();
    let read =
        CredentialFiles::new(certificate.content.to_vec(), key.content.to_vec(), bundle.content.to_vec(), federated);
    Credentials::validate(read, rules, &Clock::system()).map_err(|error| {
        let mut message = format!("identity.files.{error}");
        for (name, file) in [("certificate", certificate), ("privateKey", key), ("trustBundle", bundle)] {
            let _written = write!(message, "\n  {name}: {}", file.path.display());
        }
        message
    })
}
