//! Certificate, key and bundles, from whichever source the configuration names: validated as a whole, published as a whole.

use std::fmt::Write as _;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_config::{IdentityFiles, IdentitySource, Settings};
use portcullis_policy::PolicySet;
use portcullis_proxy::changes::Announcer;
use portcullis_reload::{FileContent, Options, StartError, Watcher};
use portcullis_tls::{
    Clock, CredentialFiles, CredentialReader, CredentialStore, Credentials, IdentityRules, MinVersion, utc,
};

use super::issued;
use super::private::Private;
use super::progress::Progress;
use super::{BAD_INPUT, Refusal};

/// The credentials in force, and what renews them.
pub(super) struct Source {
    pub(super) reader: CredentialReader,
    pub(super) progress: Progress,
    /// Watches for as long as it is there.
    _watcher: Option<Watcher>,
}

/// Starts the source. Without `identity` the store stays empty: nothing can be terminated then.
///
/// `set` says what kind of key to ask with, where the configuration does not. Files must be there and good. Whoever has to be asked for a certificate is asked while the proxy runs already.
pub(super) fn watch(settings: &Settings, set: &Arc<ArcSwap<PolicySet>>, changed: Announcer) -> Result<Source, Refusal> {
    let (store, reader) = CredentialStore::new();
    let Some(identity) = &settings.identity else {
        return Ok(Source { reader, progress: Progress::None, _watcher: None });
    };
    let private = identity.require_private_mode;
    let (progress, watcher) = match &identity.source {
        IdentitySource::Files(own) => {
            let watcher = files(settings, own, Private::new("private key", private), store, changed)?;
            (Progress::Files(watcher.monitor()), Some(watcher))
        }
        IdentitySource::Ca(ca) => issued::from_authority(settings, ca, set, private, (store, reader.clone()), changed)?,
        IdentitySource::WorkloadApi(api) => issued::from_workload_api(settings, api, (store, reader.clone()), changed)?,
    };
    Ok(Source { reader, progress, _watcher: watcher })
}

/// What the configuration says about identities.
pub(super) fn rules(settings: &Settings) -> IdentityRules {
    IdentityRules {
        trust_domain: settings.mesh.trust_domain.clone(),
        aliases: settings.mesh.aliases.clone(),
        expected_own_id: settings.own_id.clone(),
        compat: settings.tls.compat,
        min_version: if settings.tls.allow_tls12 { MinVersion::Tls12 } else { MinVersion::Tls13 },
    }
}

/// Watches files, and reads them for the first time: they must be good.
pub(super) fn watch_files(
    what: &str,
    settings: &Settings,
    paths: Vec<std::path::PathBuf>,
    loader: impl FnMut(&[FileContent]) -> Result<String, String> + Send + 'static,
) -> Result<Watcher, Refusal> {
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    Watcher::start(portcullis_reload::FileSet::Files(paths), options, loader).map_err(|error| match error {
        StartError::Thread(error) => Refusal::new(1, format!("cannot start a thread: {error}")),
        StartError::Unreadable(error) => Refusal::new(BAD_INPUT, format!("{what}: {error}")),
        other @ StartError::Refused(_) => Refusal::new(BAD_INPUT, other),
    })
}

fn files(
    settings: &Settings,
    own: &IdentityFiles,
    mut key_mode: Private,
    mut store: CredentialStore,
    changed: Announcer,
) -> Result<Watcher, Refusal> {
    let rules = rules(settings);
    let domains: Vec<_> = settings.mesh.trust_bundles.iter().map(|(domain, _)| domain.clone()).collect();
    let paths = [&own.certificate, &own.private_key, &own.trust_bundle];
    let paths = paths.into_iter().chain(settings.foreign_bundles()).cloned().collect();
    let loader = move |files: &[FileContent]| {
        let credentials = validate(files, &domains, &rules, |key| key_mode.check(key))?;
        let not_after = credentials.not_after_unix();
        let generation = store.publish(credentials);
        changed.announce();
        Ok::<_, String>(format!("credentials generation {generation}, valid until {}", utc(not_after)))
    };
    watch_files("identity.files", settings, paths, loader)
}

fn validate(
    files: &[FileContent],
    domains: &[portcullis_identity::TrustDomain],
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
