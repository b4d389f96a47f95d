//! Puts in force what the policy folder and the API server have together: parsed each for itself, checked and replaced as one set.
//!
//! A set with any error in it changes nothing, and the side that offered it goes on with what it had.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use portcullis_config::{IdentitySource, Settings};
use portcullis_istio::MeshConfig;
use portcullis_policy::{Diagnostic, EffectivePolicy, Loaded, ParsedSource, PolicySet};
use portcullis_proxy::changes::ChangeNotifier;
use portcullis_reload::{Content, FileContent};
use portcullis_telemetry::Metrics;
use portcullis_tls::{Clock, check_extra_roots};

use super::change_log::ChangeLog;
use super::effective::resolve;
use super::forward_clock::ForwardClock;
use super::publisher::Publisher;
use super::services::Services;
use crate::set_hash::set_hash;

/// What a set is put in force with.
pub(super) struct SetsParts<'a> {
    pub(super) settings: &'a Settings,
    pub(super) metrics: &'a Metrics,
    pub(super) services: &'a Arc<Services>,
    pub(super) change_log: &'a ChangeLog,
    pub(super) changed: ChangeNotifier,
    pub(super) publisher: &'a Arc<Publisher>,
    pub(super) clock: &'a Arc<ForwardClock>,
    /// [`set_hash`] of the files in force.
    pub(super) hash: &'a Arc<ArcSwapOption<String>>,
}

/// The documents of both sides.
pub(super) struct Sets {
    files: Parsed,
    /// `None` until the API server has answered, or its copy was taken.
    objects: Option<Vec<Arc<ParsedSource>>>,
    settings: Settings,
    metrics: Metrics,
    services: Arc<Services>,
    change_log: ChangeLog,
    changed: ChangeNotifier,
    publisher: Arc<Publisher>,
    clock: Arc<ForwardClock>,
    hash: Arc<ArcSwapOption<String>>,
    /// Nothing is served before both sides are there, so that there is nothing to change from.
    first: bool,
}

/// One side waits while the other one is loaded.
pub(super) fn lock(sets: &Mutex<Sets>) -> MutexGuard<'_, Sets> {
    // A side is replaced only after its set is in force.
    sets.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sets {
    pub(super) fn new(parts: SetsParts<'_>) -> Arc<Mutex<Self>> {
        let SetsParts { settings, metrics, services, change_log, changed, publisher, clock, hash } = parts;
        Arc::new(Mutex::new(Self {
            files: Parsed::default(),
            objects: None,
            settings: settings.clone(),
            metrics: metrics.clone(),
            services: Arc::clone(services),
            change_log: change_log.clone(),
            changed,
            publisher: Arc::clone(publisher),
            clock: Arc::clone(clock),
            hash: Arc::clone(hash),
            first: true,
        }))
    }

    /// The files of the folder.
    pub(super) fn offer_files(&mut self, files: &[FileContent]) -> Result<String, String> {
        let parsed = self.files.parse(files);
        let loaded = self.assemble(&parsed, self.objects.as_deref().unwrap_or_default());
        let summary = self.put(loaded, &format!("files: {}", files.len()))?;
        self.files.in_force = parsed;
        if self.settings.kubernetes.is_none() {
            self.first = false;
            if files.is_empty() {
                let mode = self.settings.mesh.policy.default_mode.as_str();
                tracing::warn!(mode, "no policy file is left: mesh.defaultMode holds for every port");
            }
        }
        self.hash.store(Some(Arc::new(set_hash(files.iter().map(|file| &*file.content)))));
        Ok(summary)
    }

    /// The objects of the API server.
    pub(super) fn offer_objects(&mut self, objects: Vec<Arc<ParsedSource>>) -> Result<String, String> {
        let loaded = self.assemble(&self.files.in_force, &objects);
        let summary = self.put(loaded, &format!("objects: {}", objects.len()))?;
        self.objects = Some(objects);
        self.first = false;
        Ok(summary)
    }

    /// Both, and what the configuration has besides, which comes last: what is written elsewhere replaces it.
    fn assemble(&self, files: &[Arc<ParsedSource>], objects: &[Arc<ParsedSource>]) -> Loaded {
        let sources = files.iter().chain(objects).map(|source| &**source);
        PolicySet::assemble(sources.chain(self.settings.services.as_ref()))
    }

    fn put(&self, loaded: Loaded, counted: &str) -> Result<String, String> {
        let loading = check(&self.settings, loaded.at(self.clock.now()), counted);
        let (policy, all, summary) = loading.inspect_err(|error| {
            self.change_log.add(format!("policies refused, those from before stay in force: {error}"));
        })?;
        for port in policy.ports().chain(policy.authorizer().ports()) {
            self.metrics.allow_port_label(port);
        }
        let all = Arc::new(all);
        if self.first {
            self.publisher.put_first(Arc::clone(&all));
            self.services.set_first(&all);
        } else {
            // Before the services: callers change in the middle of the time in which a port admits both.
            self.publisher.put(Arc::clone(&all));
            self.services.set(&all);
        }
        self.changed.notify();
        Ok(summary)
    }
}

/// The parsed content of each file. A file that did not change is not parsed again.
#[derive(Default)]
struct Parsed {
    known: HashMap<PathBuf, (Content, Arc<ParsedSource>)>,
    /// The files of the set in force, in their order.
    in_force: Vec<Arc<ParsedSource>>,
}

impl Parsed {
    fn parse(&mut self, files: &[FileContent]) -> Vec<Arc<ParsedSource>> {
        let mut before = std::mem::take(&mut self.known);
        let mut all = Vec::with_capacity(files.len());
        for FileContent { path, content, .. } in files {
            let parsed = match before.remove(path) {
                Some((known, parsed)) if known == *content => parsed,
                _ => Arc::new(ParsedSource::new(&path.display().to_string(), content)),
            };
            all.push(Arc::clone(&parsed));
            self.known.insert(path.clone(), (content.clone(), parsed));
        }
        all
    }
}

/// Whether the set may be put in force, and what it means for the workload.
fn check(
    settings: &Settings,
    mut loaded: Loaded,
    counted: &str,
) -> Result<(EffectivePolicy, PolicySet, String), String> {
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
    let summary = format!("documents: {}, {counted}", loaded.documents);
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

    fn load(parsed: &mut Parsed, files: &[FileContent]) -> Loaded {
        PolicySet::assemble(parsed.parse(files).iter().map(|source| &**source))
    }

    #[test]
    fn an_unchanged_file_is_not_parsed_again_and_a_changed_one_is() {
        let mut parsed = Parsed::default();
        let (one, two, three) = (named("one"), named("two"), named("three"));
        assert_eq!(load(&mut parsed, &[file("a", &one), file("b", &two)]).set.policies().len(), 2);
        // Proves that the cached result is used: a different result for the same content is returned.
        let kept = Arc::new(ParsedSource::new("a", named("kept").as_bytes()));
        parsed.known.get_mut(&PathBuf::from("a")).unwrap().1 = kept;
        let names = |loaded: &Loaded| loaded.set.policies().iter().map(|p| p.name.clone()).collect::<Vec<_>>();
        let again = load(&mut parsed, &[file("a", &one), file("b", &three)]);
        assert_eq!(names(&again), ["kept", "three"]);
        let moved = load(&mut parsed, &[file("b", &three), file("c", &one)]);
        assert_eq!(names(&moved), ["three", "one"]);
        assert_eq!(parsed.known.len(), 2, "what is gone is forgotten");
    }

    #[test]
    fn a_duplicate_of_an_unchanged_file_is_found() {
        let mut parsed = Parsed::default();
        assert!(load(&mut parsed, &[file("a", &named("one"))]).errors.is_empty());
        let loaded = load(&mut parsed, &[file("a", &named("one")), file("b", &named("one"))]);
        assert_eq!(loaded.errors.len(), 1, "{:?}", loaded.errors);
        assert_eq!(loaded.errors[0].reason, "duplicate-resource");
        assert!(loaded.errors[0].message.contains("at a:1 already"), "{}", loaded.errors[0]);
    }
}
