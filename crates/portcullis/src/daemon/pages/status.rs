//! `/status`: what the sidecar knows of itself and no other page says, for `portcullis check`.

use portcullis_api::{
    Capture, CaptureListener, CaptureRules, ConfigChange as Change, ConfigFile as File, IdentitySource, IgnoredFile,
    Ledger, NamedPlace, ProxyInfo, Status, Timestamp,
};
use portcullis_config::Settings;
use portcullis_intercept::{Installed, installed};
use portcullis_policy::PolicySet;
use portcullis_reload::ignored_files;
use portcullis_telemetry::{Direction, Metrics};

use crate::daemon::config_file::{ConfigChange, ConfigFile};

/// More would not be read.
const MOST_IGNORED: usize = 1000;

/// What the page is made from.
pub(in crate::daemon) struct StatusParts<'a> {
    pub(in crate::daemon) proxy: ProxyInfo,
    /// What readiness waits for.
    pub(in crate::daemon) pending: Vec<String>,
    pub(in crate::daemon) settings: &'a Settings,
    pub(in crate::daemon) config_file: &'a ConfigFile,
    pub(in crate::daemon) identity: IdentitySource,
    pub(in crate::daemon) set: &'a PolicySet,
    pub(in crate::daemon) metrics: &'a Metrics,
}

/// The page.
pub(in crate::daemon) fn status(parts: StatusParts<'_>) -> Status {
    let StatusParts { proxy, pending, settings, config_file, identity, set, metrics } = parts;
    Status {
        proxy,
        pending,
        config_file: file(config_file),
        capture: capture(settings, metrics),
        identity,
        ignored_files: settings.policies.as_deref().map(|folder| {
            let ignored = ignored_files(folder).into_iter();
            let ignored = ignored.map(|one| (one.path.display().to_string(), one.reason.as_str().to_owned()));
            ignored.map(|(file, reason)| IgnoredFile { file, reason }).take(MOST_IGNORED).collect()
        }),
        without_sidecar: without_sidecar(set),
        ledger: Ledger {
            folder: settings.ledger.folder.as_deref().map(|folder| folder.display().to_string()),
            is_persistent: metrics.ledger.is_persistent(),
            observations: metrics.ledger.observation_count() as u64,
            evicted: metrics.ledger.evicted(),
            write_failures: metrics.ledger.write_failures(),
        },
    }
}

/// The workloads and services of a directory without a sidecar.
fn without_sidecar(set: &PolicySet) -> Vec<NamedPlace> {
    let places = set.without_sidecar().map(|meta| NamedPlace {
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        file: meta.file.to_string(),
        line: meta.line,
    });
    places.collect()
}

fn file(file: &ConfigFile) -> File {
    let (change, problem) = match file.change() {
        ConfigChange::Unchanged => (Change::Unchanged, None),
        ConfigChange::Changed => (Change::Changed, None),
        ConfigChange::Unreadable(problem) => (Change::Unreadable, Some(problem)),
    };
    File { source: file.source().to_string(), change, problem }
}

fn capture(settings: &Settings, metrics: &Metrics) -> Capture {
    let listener = |listen: Option<std::net::SocketAddr>, direction| {
        listen.map(|listen| CaptureListener {
            listen: listen.to_string(),
            captured_at: metrics.captured.get(direction).map(Timestamp::from_unix),
        })
    };
    let inbound = listener(settings.inbound.transparent, Direction::Inbound);
    let outbound = listener(settings.outbound.transparent, Direction::Outbound);
    let (rules, detail) =
        if inbound.is_some() || outbound.is_some() { rules(settings) } else { (CaptureRules::Unknown, None) };
    Capture { inbound, outbound, rules, detail }
}

/// What the kernel has, and what differs, or why that is not known.
pub(in crate::daemon) fn rules(settings: &Settings) -> (CaptureRules, Option<String>) {
    match installed(&portcullis_intercept::Capture::of(settings).table()) {
        Ok(Installed::AsPlanned) => (CaptureRules::AsPlanned, None),
        Ok(Installed::Missing) => (CaptureRules::Missing, None),
        Ok(Installed::Different(what)) => (CaptureRules::Different, Some(what)),
        Err(error) => (CaptureRules::Unknown, Some(error.to_string())),
    }
}
