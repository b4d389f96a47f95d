//! The policy folder: watched, parsed as a whole, and put in force as a whole.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use portcullis_config::{IdentitySource, Settings};
use portcullis_istio::MeshConfig;
use portcullis_policy::{Diagnostic, EffectivePolicy, Loaded, ParsedSource, PolicySet};
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_reload::{Content, FileContent, Monitor, Options, StartError, Watcher};
use portcullis_telemetry::Metrics;
use portcullis_tls::{Clock, check_extra_roots};

use super::candidates;
use super::change_log::ChangeLog;
use super::effective::resolve;
use super::forward_clock::ForwardClock;
use super::identity_files::not_started;
use super::in_force::InForce;
use super::publisher::Publisher;
use super::services::Services;
use crate::exit::{Exit, Failure};
use crate::set_hash::set_hash;

/// The effective policy in force, the set it was made from, and the watcher that keeps it so.
pub(super) struct Policies {
    pub(super) effective: Arc<ArcSwap<EffectivePolicy>>,
    /// For explanations; no connection reads it.
    pub(super) set: Arc<ArcSwap<PolicySet>>,
    /// [`set_hash`] of the files in force; none without a folder.
    pub(super) hash: Arc<ArcSwapOption<String>>,
    pub(super) in_force: Arc<InForce>,
    pub(super) publisher: Arc<Publisher>,
    pub(super) clock: Arc<ForwardClock>,
    watcher: Option<Watcher>,
    /// They are not reported: what is not enforced does not make the set in force out of date.
    _candidates: Vec<Watcher>,
}

impl Policies {
    pub(super) fn monitor(&self) -> Option<Monitor> {
        self.watcher.as_ref().map(Watcher::monitor)
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
    let Some(folder) = settings.policies.clone() else {
        services.set_first(&PolicySet::assemble(&settings.services).set);
        return Ok(Policies {
            effective,
            set,
            hash,
            in_force,
            publisher,
            clock,
            watcher: None,
            _candidates: candidates,
        });
    };
    let options = Options { rescan_interval: settings.rescan, ..Options::default() };
    let (target, time, metrics, settings) =
        (Arc::clone(&publisher), Arc::clone(&clock), metrics.clone(), settings.clone());
    let (services, in_force_hash) = (Arc::clone(services), Arc::clone(&hash));
    let change_log = change_log.clone();
    let mut first = true;
    let mut parsed = Parsed::default();
    let loader = move |files: &[FileContent]| {
        let read = parsed.load(files, settings.services.as_ref()).at(time.now());
        let loading = load(&settings, read, files.len());
        let (policy, all, summary) = loading.inspect_err(|error| {
            change_log.add(format!("policies refused, those from before stay in force: {error}"));
        })?;
        for port in policy.ports().chain(policy.authorizer().ports()) {
            metrics.allow_port_label(port);
        }
        if files.is_empty() {
            let mode = settings.mesh.policy.default_mode.as_str();
            tracing::warn!(mode, "no policy file is left: mesh.defaultMode holds for every port");
        }
        let all = Arc::new(all);
        if std::mem::take(&mut first) {
            target.put_first(Arc::clone(&all));
            services.set_first(&all);
        } else {
            // Before the services: callers change in the middle of the time in which a port admits both.
            target.put(Arc::clone(&all));
            services.set(&all);
        }
        in_force_hash.store(Some(Arc::new(set_hash(files.iter().map(|file| &*file.content)))));
        changed.notify();
        Ok::<_, String>(summary)
    };
    let watcher =
        Watcher::start(portcullis_reload::FileSet::Folder(folder), options, loader).map_err(|error| match error {
            thread @ StartError::Thread(_) => not_started("policies", thread),
            other => Failure::message(Exit::BadInput, format!("policies: {other}")),
        })?;
    Ok(Policies { effective, set, hash, in_force, publisher, clock, watcher: Some(watcher), _candidates: candidates })
}

/// The parsed content of each file. A file that did not change is not parsed again.
#[derive(Default)]
struct Parsed(HashMap<PathBuf, (Content, ParsedSource)>);

impl Parsed {
    /// The files, and what the configuration has besides.
    fn load(&mut self, files: &[FileContent], services: Option<&ParsedSource>) -> Loaded {
        let mut before = std::mem::take(&mut self.0);
        for FileContent { path, content, .. } in files {
            let parsed = match before.remove(path) {
                Some((known, parsed)) if known == *content => parsed,
                _ => ParsedSource::new(&path.display().to_string(), content),
            };
            self.0.insert(path.clone(), (content.clone(), parsed));
        }
        let parsed = files.iter().filter_map(|file| self.0.get(&file.path)).map(|(_, parsed)| parsed);
        PolicySet::assemble(parsed.chain(services))
    }
}

fn load(settings: &Settings, mut loaded: Loaded, files: usize) -> Result<(EffectivePolicy, PolicySet, String), String> {
    let workload = &settings.workload;
    loaded.errors.extend(check_extra_roots(loaded.set.mesh(), Clock::system().now_unix()).errors);
    if !loaded.errors.is_empty() {
        let lines: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(lines.join("\n"));
    }
    warn_without_effect(settings, loaded.set.mesh());
    let here = loaded.set.warnings_for(&settings.mesh.policy, &workload.namespace, &workload.labels);
    for warning in loaded.warnings.iter().chain(&here) {
        tracing::warn!(%warning, "policy");
    }
    let summary = format!("documents: {}, files: {files}", loaded.documents);
    Ok((resolve(settings, &loaded.set), loaded.set, summary))
}

/// Warns about settings that have no effect on a sidecar.
fn warn_without_effect(settings: &Settings, mesh: &MeshConfig) {
    let note = |warning: &Diagnostic| tracing::warn!(%warning, "policy");
    for location in mesh.ca_only_locations() {
        let message = "has an effect in the folder of the CA only (`portcullis ca run --dir`)".to_owned();
        note(&location.diagnostic("no-effect-here", message));
    }
    let source = settings.identity.as_ref().map(|identity| &identity.source);
    let why = match source {
        Some(IdentitySource::Ca(ca)) if ca.key_type.is_none() => return,
        Some(IdentitySource::Ca(_)) => "has no effect: identity.ca.keyType of the configuration says otherwise",
        _ => "has no effect: the certificate does not come from a CA (identity.ca)",
    };
    if let Some(key) = &mesh.workload_key {
        note(&key.location.diagnostic("no-effect-here", why.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> FileContent {
        FileContent { path: path.into(), content: text.as_bytes().to_vec().into(), mode: 0o644 }
    }

    fn named(name: &str) -> String {
        format!(
            "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {{name: {name}, namespace: x}}}}"
        )
    }

    #[test]
    fn an_unchanged_file_is_not_parsed_again_and_a_changed_one_is() {
        let mut parsed = Parsed::default();
        let (one, two, three) = (named("one"), named("two"), named("three"));
        assert_eq!(parsed.load(&[file("a", &one), file("b", &two)], None).set.policies().len(), 2);
        // Proves that the cached result is used: a different result for the same content is returned.
        let kept = ParsedSource::new("a", named("kept").as_bytes());
        parsed.0.get_mut(&PathBuf::from("a")).unwrap().1 = kept;
        let names = |loaded: &Loaded| loaded.set.policies().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let again = parsed.load(&[file("a", &one), file("b", &three)], None);
        assert_eq!(names(&again), ["kept", "three"]);
        let moved = parsed.load(&[file("b", &three), file("c", &one)], None);
        assert_eq!(names(&moved), ["three", "one"]);
        assert_eq!(parsed.0.len(), 2, "what is gone is forgotten");
    }

    #[test]
    fn a_duplicate_of_an_unchanged_file_is_found() {
        let mut parsed = Parsed::default();
        assert!(parsed.load(&[file("a", &named("one"))], None).errors.is_empty());
        let loaded = parsed.load(&[file("a", &named("one")), file("b", &named("one"))], None);
        assert_eq!(loaded.errors.len(), 1, "{:?}", loaded.errors);
        assert_eq!(loaded.errors[0].reason, "duplicate-resource");
        assert!(loaded.errors[0].message.contains("at a:1 already"), "{}", loaded.errors[0]);
    }
}
