//! Where policies come from: the folder and the API server that are watched. What they have is put in force in [`super::sets`].

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_config::Settings;
use portcullis_kubernetes::Source;
use portcullis_policy::{EffectivePolicy, PolicySet};
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_reload::{FileContent, Monitor, Options, StartError, Watcher};
use portcullis_telemetry::Metrics;
use portcullis_tls::Clock;

use super::candidates;
use super::change_log::ChangeLog;
use super::effective::resolve;
use super::forward_clock::ForwardClock;
use super::identity_files::not_started;
use super::in_force::InForce;
use super::kubernetes;
use super::publisher::Publisher;
use super::services::Services;
use super::sets::{self, Sets, SetsParts};
use crate::exit::{Exit, Failure};

/// The effective policy in force, the set it was made from, and the watcher that keeps it so.
pub(super) struct Policies {
    pub(super) effective: Arc<ArcSwap<EffectivePolicy>>,
    /// For explanations; no connection reads it.
    pub(super) set: Arc<ArcSwap<PolicySet>>,
    /// [`set_hash`](crate::set_hash::set_hash) of the files in force; none without a folder.
    pub(super) hash: Arc<ArcSwapOption<String>>,
    pub(super) in_force: Arc<InForce>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) clock: Arc<ForwardClock>,
    watcher: Option<Watcher>,
    kubernetes: Option<Source>,
    /// They are not reported: what is not enforced does not make the set in force out of date.
    _candidates: Vec<Watcher>,
}

impl Policies {
    pub(super) fn monitor(&self) -> Option<Monitor> {
        self.watcher.as_ref().map(Watcher::monitor)
    }

    /// The API server's objects, if they are watched.
    pub(super) fn kubernetes(&self) -> Option<portcullis_kubernetes::Monitor> {
        self.kubernetes.as_ref().map(Source::monitor)
    }

    /// Reads everything again.
    pub(super) fn reload_now(&self) {
        self.monitor().iter().for_each(Monitor::reload_now);
        self.kubernetes().iter().for_each(portcullis_kubernetes::Monitor::reload_now);
    }
}

/// Loads the folder and watches it. A set with any error in it changes nothing.
pub(super) fn watch(
    settings: &Settings,
    metrics: &Metrics,
    services: &Arc<Services>,
    change_log: &ChangeLog,
    changed: ChangeNotifier,
) -> Result<Policies, Failure> {
    let none = resolve(settings, &PolicySet::default());
    let in_force = Arc::new(InForce::new(none, settings.candidates.len()));
    let clock = Arc::new(ForwardClock::new(Clock::system()));
    let publisher = Arc::new(Publisher::new(settings, &in_force, change_log, &clock));
    let (effective, set) = (in_force.published(), publisher.set());
    let hash = Arc::<ArcSwapOption<String>>::default();
    let candidates = candidates::watch(settings, &in_force)?;
    if settings.policies.is_none() && settings.kubernetes.is_none() {
        services.set_first(&PolicySet::assemble(&settings.services).set);
    }
    let sets = Sets::new(SetsParts {
        settings,
        metrics,
        services,
        change_log,
        changed,
        publisher: &publisher,
        clock: &clock,
        hash: &hash,
    });
    let watcher = settings.policies.clone().map(|folder| watch_folder(settings, folder, &sets)).transpose()?;
    let source = kubernetes::watch(settings, &sets)?;
    Ok(Policies {
        effective,
        set,
        hash,
        in_force,
        publisher,
        clock,
        watcher,
        kubernetes: source,
        _candidates: candidates,
    })
}

fn watch_folder(settings: &Settings, folder: PathBuf, sets: &Arc<Mutex<Sets>>) -> Result<Watcher, Failure> {
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    let sets = Arc::clone(sets);
    let loader = move |files: &[FileContent]| sets::lock(&sets).offer_files(files);
    Watcher::start(portcullis_reload::FileSet::Folder(folder), options, loader).map_err(|error| match error {
        thread @ StartError::Thread(_) => not_started("policies", thread),
        other => Failure::message(Exit::BadInput, format!("policies: {other}")),
    })
}
