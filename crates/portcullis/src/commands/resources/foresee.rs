//! What running sidecars say against a change of the folder, before it is made: ports that become STRICT while clients without mTLS call
//! them, or while nobody knows; and policies for namespaces without a sidecar.

use std::collections::BTreeSet;

use portcullis_api::{Observations, Timestamp};
use portcullis_manifest::{Action, Effect, Plan, ResourceKind};
use portcullis_policy::diff::Comparison;
use portcullis_policy::{EffectivePolicy, Evaluation, MeshSettings, Mode, PolicySet};
use portcullis_report::readiness::{Options, Port, PortReadiness, Readiness};
use portcullis_report::{Answer, Window};
use portcullis_tls::Clock;

use crate::commands::observed::{self, names};
use crate::commands::proxies::ProxiesArgs;

/// The options of readiness, as the command `readiness` does without flags.
const WINDOW: Window = Window { seconds: 7 * 86_400 };
const MIN_OBSERVATION: u64 = 86_400;
/// The most ports that are named.
const MAX_NAMED: usize = 10;

/// A change, and where sidecars are.
pub(super) struct Foresee<'a> {
    pub(super) before: &'a PolicySet,
    pub(super) after: &'a PolicySet,
    pub(super) mesh: &'a MeshSettings,
    pub(super) plan: &'a Plan,
    pub(super) proxies: &'a ProxiesArgs,
    /// A guard watches the change: who breaks is seen then.
    pub(super) is_guarded: bool,
}

impl Foresee<'_> {
    /// Each a line. Sidecars are asked if the command line names them, or if something becomes STRICT.
    pub(super) fn warnings(&self) -> Vec<String> {
        let tightens = !self.is_guarded && self.tightens();
        let is_wanted = self.proxies.is_named() && self.written().next().is_some();
        if !(tightens || is_wanted) {
            return Vec::new();
        }
        // What cannot be asked is said below.
        let (answers, containers) = observed::ask(self.proxies).unwrap_or_default();
        let mut warnings = Vec::new();
        if tightens {
            let now = Timestamp::from_unix(Clock::system().now_unix());
            let options = Options { window: WINDOW, min_observation: MIN_OBSERVATION, namespace: None, now };
            let readiness = Readiness::new(&answers, &names(&answers, &containers), &[], &options);
            warnings.extend(self.not_ready(&answers, &readiness));
        }
        if self.proxies.is_named() {
            warnings.extend(self.without_sidecar(&answers));
        }
        warnings
    }

    /// Whether a port of any workload becomes STRICT that was not.
    fn tightens(&self) -> bool {
        let Self { before: old, after: new, mesh, .. } = *self;
        let comparison = Comparison { old, new, mesh, evaluation: Evaluation::Enforced };
        let Ok(changes) = comparison.all_workloads() else { return true };
        changes.iter().any(|change| {
            let (namespace, labels) = (&change.workload.namespace, &change.workload.labels);
            let mode = |set| EffectivePolicy::resolve(set, mesh, namespace, labels).mode(change.witness.port).mode;
            mode(new) == Mode::Strict && mode(old) != Mode::Strict
        })
    }

    fn not_ready(&self, answers: &[Answer], readiness: &Readiness) -> Vec<String> {
        let answered: Vec<&Observations> = answers.iter().filter_map(|it| it.observations.as_ref().ok()).collect();
        let mut said = BTreeSet::new();
        for port in &readiness.items {
            let is_its = |it: &&&Observations| {
                (&it.proxy.namespace, &it.proxy.name) == (&port.workload.namespace, &port.workload.name)
            };
            let tightened = answered.iter().filter(is_its).any(|it| {
                let mode = |set| {
                    let (namespace, labels) = (&it.proxy.namespace, &it.proxy.labels);
                    EffectivePolicy::resolve(set, self.mesh, namespace, labels).mode(port.port).mode
                };
                mode(self.after) == Mode::Strict && mode(self.before) != Mode::Strict
            });
            if let Some(why) = Some(port).filter(|_| tightened).and_then(why) {
                let name = format!("{}/{}:{}", port.workload.namespace, port.workload.name, port.port);
                said.insert(format!("{name} becomes STRICT and is not READY: {why}"));
            }
        }
        let (count, silent) = (said.len(), readiness.unanswered.len());
        let mut lines: Vec<String> = said.into_iter().take(MAX_NAMED).collect();
        if count > MAX_NAMED {
            lines.push(format!("{} more ports become STRICT and are not READY", count.saturating_sub(MAX_NAMED)));
        }
        if answered.is_empty() {
            lines.push("ports become STRICT, and no sidecar was asked whom that refuses".to_owned());
        } else if silent > 0 {
            let them = if silent == 1 { "1 sidecar".to_owned() } else { format!("{silent} sidecars") };
            lines.push(format!("ports become STRICT, and {them} did not answer whom that refuses"));
        }
        if !lines.is_empty() {
            let flags = self.proxies.flags();
            let proxies = if flags.as_str().is_empty() { " --docker" } else { flags.as_str() };
            lines.push(format!(
                "see `portcullis readiness{proxies}`; with --guard 10m{proxies} a change that refuses somebody is taken back"
            ));
        }
        lines
    }

    /// Policies of the change that are new or other than before.
    fn written(&self) -> impl Iterator<Item = &Effect> {
        let of_workloads =
            |it: &&Effect| matches!(it.id.kind, ResourceKind::PeerAuthentication | ResourceKind::AuthorizationPolicy);
        let is_written = |it: &&Effect| !matches!(it.action, Action::Deleted) && it.before != it.after;
        self.plan.effects.iter().filter(of_workloads).filter(is_written)
    }

    /// Policies for namespaces in which no sidecar answers.
    fn without_sidecar(&self, answers: &[Answer]) -> Vec<String> {
        let known: BTreeSet<&str> =
            answers.iter().filter_map(|it| Some(it.observations.as_ref().ok()?.proxy.namespace.as_str())).collect();
        if known.is_empty() {
            return Vec::new();
        }
        let there = known.iter().copied().collect::<Vec<_>>().join(", ");
        let is_nowhere =
            |it: &&Effect| it.id.namespace != self.mesh.root_namespace && !known.contains(it.id.namespace.as_str());
        let line = |it: &Effect| {
            format!("{} is for namespace {}, where no sidecar answers; there are: {there}", it.id, it.id.namespace)
        };
        self.written().filter(is_nowhere).map(line).collect()
    }
}

/// Why a port is not ready; none if it is.
fn why(port: &Port) -> Option<String> {
    match port.verdict {
        PortReadiness::NotReady => {
            let clients: Vec<&str> = port.clients.iter().map(|it| it.client.as_str()).collect();
            let more = if clients.len() > 3 { format!(" and {} more", clients.len() - 3) } else { String::new() };
            let named = clients.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            Some(format!("it refuses {named}{more}"))
        }
        PortReadiness::NoData => Some("no connection was let through in the last 7d".to_owned()),
        PortReadiness::Ready if port.observed_seconds < MIN_OBSERVATION => {
            let hours = port.observed_seconds / 3600;
            let shown = if hours == 0 { format!("{}m", port.observed_seconds / 60) } else { format!("{hours}h") };
            Some(format!("it was observed for {shown} of 1d"))
        }
        PortReadiness::Exception => Some("a documented exception ends with it".to_owned()),
        PortReadiness::Ready | PortReadiness::Enforced => None,
    }
}
