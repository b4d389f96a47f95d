//! Certificate, key and bundles: watched as one set, validated as a whole, published as a whole.

use std::fmt::Write as _;

use portcullis_proxy::changes::Announcer;
use portcullis_settings::{IdentitySource, Settings};
use portcullis_tls::{
    Clock, CredentialFiles, CredentialReader, CredentialStore, Credentials, IdentityRules, MinVersion, utc,
};
use portcullis_watch::{FileContent, Monitor, Options, StartError, Watcher};

use super::private::Private;
use super::{BAD_INPUT, Refusal};

/// The credentials in force, and the watcher that renews them.
pub(super) struct Source {
    pub(super) reader: CredentialReader,
    watcher: Option<Watcher>,
}

impl Source {
    pub(super) fn monitor(&self) -> Option<Monitor> {
        self.watcher.as_ref().map(Watcher::monitor)
    }

    /// Whether the configuration names an identity at all.
    pub(super) fn configured(&self) -> bool {
        self.watcher.is_some()
    }
}

/// Loads the files and watches them. Without `identity` the store stays empty: nothing can be terminated then.
pub(super) fn watch(settings: &Settings, changed: Announcer) -> Result<Source, Refusal> {
    let (mut store, reader) = CredentialStore::new();
    let Some(identity) = &settings.identity else {
        return Ok(Source { reader, watcher: None });
    };
    let IdentitySource::Files(own) = &identity.source else {
        return Err(Refusal::new(BAD_INPUT, "identity: only files are a source so far"));
    };
    let paths = [&own.certificate, &own.private_key, &own.trust_bundle];
    let paths = paths.into_iter().chain(settings.foreign_bundles()).cloned().collect();
    let rules = IdentityRules {
        trust_domain: settings.mesh.trust_domain.clone(),
        aliases: settings.mesh.aliases.clone(),
        expected_own_id: settings.own_id.clone(),
        compat: settings.tls.compat,
        min_version: if settings.tls.allow_tls12 { MinVersion::Tls12 } else { MinVersion::Tls13 },
    };
    let domains: Vec<_> = settings.mesh.trust_bundles.iter().map(|(domain, _)| domain.clone()).collect();
    let mut key_mode = Private::new("private key", identity.require_private_mode);
    let loader = move |files: &[FileContent]| {
        let credentials = validate(files, &domains, &rules, |key| key_mode.check(key))?;
        let not_after = credentials.not_after_unix();
        let generation = store.publish(credentials);
        changed.announce();
        Ok::<_, String>(format!("credentials generation {generation}, valid until {}", utc(not_after)))
    };
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    let watcher =
        Watcher::start(portcullis_watch::Source::Files(paths), options, loader).map_err(|error| match error {
            StartError::Thread(error) => Refusal::new(1, format!("cannot start a thread: {error}")),
            StartError::Unreadable(error) => Refusal::new(BAD_INPUT, format!("identity.files: {error}")),
            other @ StartError::Refused(_) => Refusal::new(BAD_INPUT, other),
        })?;
    Ok(Source { reader, watcher: Some(watcher) })
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
