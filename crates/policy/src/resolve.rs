//! Precedence: from all policies to the mode of each port of one workload.
//!
//! Istio's ComposePeerAuthentication: one policy is picked in each scope (oldest, then name), none are merged; the narrower
//! scope wins where it is set; ports come from the picked workload policy only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::authorization::{AuthorizationPolicy, Authorizer};
use crate::break_glass::BreakGlass;
use crate::decided::{Decided, DecidedBy, Scope};
use crate::evaluation::Evaluation;
use crate::mode::Mode;
use crate::resource::PeerAuthentication;
use crate::set::PolicySet;
use crate::workload::MeshSettings;

/// Why a policy does not apply: its namespace is neither the workload's nor the root namespace.
pub(crate) const OTHER_NAMESPACE: &str = "other-namespace";
/// Why a policy does not apply: it has a selector and is in the root namespace.
pub(crate) const ROOT_SELECTOR: &str = "root-selector";
/// Why a policy does not apply: it has the annotation `istio.io/dry-run`.
pub(crate) const DRY_RUN: &str = "dry-run";
/// Why a policy does not apply: its selector does not match the workload's labels.
pub(crate) const SELECTOR_MISMATCH: &str = "selector-mismatch";

/// The mode of every port of one workload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Modes {
    workload: Arc<Decided>,
    ports: HashMap<u16, Arc<Decided>>,
}

impl Modes {
    /// What the chosen policies say. The narrower scope goes before the wider one where it is set.
    pub(crate) fn new(chosen: &Chosen<'_>, default_mode: Mode) -> Self {
        let mut workload = Decided::new(default_mode, DecidedBy::default_mode());
        let scopes =
            [(Scope::Mesh, chosen.mesh), (Scope::Namespace, chosen.namespace), (Scope::Workload, chosen.workload)];
        for (scope, policy) in scopes {
            if let Some((policy, mode)) = policy.and_then(|policy| Some((policy, policy.mode?))) {
                workload = Decided::new(mode, DecidedBy::new(scope, policy));
            }
        }
        let workload = Arc::new(workload);
        let decided = |policy: &PeerAuthentication, mode: Option<Mode>| match mode {
            Some(mode) => Arc::new(Decided::new(mode, DecidedBy::new(Scope::Port, policy))),
            None => Arc::clone(&workload),
        };
        let of_policy = |policy: &PeerAuthentication| {
            policy.ports.iter().map(|(port, mode)| (*port, decided(policy, *mode))).collect()
        };
        let ports = chosen.workload.map(of_policy).unwrap_or_default();
        Self { workload, ports }
    }

    /// Opens what break-glass documents of the workload open: STRICT becomes PERMISSIVE where a policy of their scope or a wider one
    /// decided it, and nothing else changes. Of several, the one that lasts longest is named.
    fn opened_by(mut self, documents: impl Iterator<Item = Arc<BreakGlass>>) -> Self {
        let mut documents: Vec<_> = documents.collect();
        documents.sort_by_key(|it| it.until);
        let before = if documents.is_empty() { return self } else { self.clone() };
        for it in documents {
            let opened = Arc::new(Decided::new(Mode::Permissive, DecidedBy::break_glass(&it)));
            let reach = if it.policy.selector.is_empty() { Scope::Namespace } else { Scope::Workload };
            let opens = |decided: &Decided| {
                it.policy.mode.is_some() && decided.mode == Mode::Strict && decided.by.scope <= reach
            };
            if opens(&before.workload) {
                self.workload = Arc::clone(&opened);
            }
            let of_policies = before.ports.iter().filter(|(_, decided)| opens(decided)).map(|(port, _)| *port);
            let own = it.policy.ports.keys().copied().filter(|port| before.mode(*port).mode == Mode::Strict);
            for port in of_policies.chain(own) {
                self.ports.insert(port, Arc::clone(&opened));
            }
        }
        self
    }

    /// The mode of a port.
    pub(crate) fn mode(&self, port: u16) -> &Arc<Decided> {
        self.ports.get(&port).unwrap_or(&self.workload)
    }

    /// The ports with a mode of their own.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.ports.keys().copied()
    }
}

/// What holds for one workload: the mode of every port, a table look-up, and who is authorized. Neither depends on the number
/// of policies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EffectivePolicy {
    modes: Modes,
    authorizer: Arc<Authorizer>,
    shadows: Vec<Shadow>,
}

/// A policy that is evaluated beside the one in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shadow {
    /// `dry-run`, or the name of the candidate set.
    pub name: Arc<str>,
    /// Where it comes from.
    pub kind: ShadowKind,
    /// What it would enforce.
    pub policy: EffectivePolicy,
}

/// Where a shadow comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShadowKind {
    /// The set in force, with its dry-run policies.
    DryRun,
    /// Another set.
    Candidate,
}

impl ShadowKind {
    /// Whether it is another set.
    #[must_use]
    pub const fn is_candidate(self) -> bool {
        matches!(self, Self::Candidate)
    }
}

/// The chosen policy of each scope.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chosen<'p> {
    pub(crate) mesh: Option<&'p PeerAuthentication>,
    pub(crate) namespace: Option<&'p PeerAuthentication>,
    pub(crate) workload: Option<&'p PeerAuthentication>,
}

impl<'p> Chosen<'p> {
    /// The chosen policy of a scope; for a port, the workload policy.
    pub(crate) const fn get(&self, scope: Scope) -> Option<&'p PeerAuthentication> {
        match scope {
            Scope::Default | Scope::BreakGlass => None,
            Scope::Mesh => self.mesh,
            Scope::Namespace => self.namespace,
            Scope::Workload | Scope::Port => self.workload,
        }
    }
}

/// Whether a policy concerns the workload, and in which scope; otherwise why not.
pub(crate) fn candidate(
    policy: &PeerAuthentication,
    mesh: &MeshSettings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    evaluation: Evaluation,
) -> Result<Scope, &'static str> {
    if !evaluation.includes(policy.dry_run) {
        return Err(DRY_RUN);
    }
    let root = policy.namespace == mesh.root_namespace;
    if !root && policy.namespace != namespace {
        return Err(OTHER_NAMESPACE);
    }
    match (policy.selector.is_empty(), root) {
        (true, true) => Ok(Scope::Mesh),
        (true, false) => Ok(Scope::Namespace),
        (false, true) => Err(ROOT_SELECTOR),
        (false, false) if policy.selector.iter().all(|(key, value)| labels.get(key) == Some(value)) => {
            Ok(Scope::Workload)
        }
        (false, false) => Err(SELECTOR_MISMATCH),
    }
}

/// The chosen policies of a workload, among all of a set.
pub(crate) fn choose<'p>(
    set: &'p PolicySet,
    mesh: &MeshSettings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    evaluation: Evaluation,
) -> Chosen<'p> {
    choose_among(set.policies(), mesh, namespace, labels, evaluation)
}

/// The chosen policies of a workload. Policies that are no candidates may be left out.
pub(crate) fn choose_among<'p>(
    policies: impl IntoIterator<Item = &'p PeerAuthentication>,
    mesh: &MeshSettings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    evaluation: Evaluation,
) -> Chosen<'p> {
    let mut chosen = Chosen::default();
    for policy in policies {
        let slot = match candidate(policy, mesh, namespace, labels, evaluation) {
            Ok(Scope::Mesh) => &mut chosen.mesh,
            Ok(Scope::Namespace) => &mut chosen.namespace,
            Ok(Scope::Workload) => &mut chosen.workload,
            Ok(Scope::Port | Scope::Default | Scope::BreakGlass) | Err(_) => continue,
        };
        if slot.is_none_or(|held| policy.precedes(held)) {
            *slot = Some(policy);
        }
    }
    chosen
}

impl EffectivePolicy {
    /// Resolves all policies for one workload. Where the set has policies with `istio.io/dry-run` for it, a shadow shows what
    /// they would do.
    #[must_use]
    pub fn resolve(set: &PolicySet, mesh: &MeshSettings, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let policy = Self::evaluate(set, mesh, namespace, labels, Evaluation::Enforced);
        let concerned = |policy: &PeerAuthentication| {
            policy.dry_run && candidate(policy, mesh, namespace, labels, Evaluation::DryRun).is_ok()
        };
        let authorized = |policy: &Arc<AuthorizationPolicy>| {
            policy.dry_run && policy.applies_to(&mesh.root_namespace, namespace, labels)
        };
        if set.policies().iter().any(concerned) || set.authorization_policies().iter().any(authorized) {
            let shadow = Self::evaluate(set, mesh, namespace, labels, Evaluation::DryRun);
            return policy.with_shadows([Shadow { name: DRY_RUN.into(), kind: ShadowKind::DryRun, policy: shadow }]);
        }
        policy
    }

    /// Resolves the policies that count for one workload.
    #[must_use]
    pub fn evaluate(
        set: &PolicySet,
        mesh: &MeshSettings,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        evaluation: Evaluation,
    ) -> Self {
        let chosen = choose(set, mesh, namespace, labels, evaluation);
        let break_glass = set.active_break_glass().filter(|it| it.covers(namespace, labels)).cloned();
        let modes = Modes::new(&chosen, mesh.default_mode).opened_by(break_glass);
        let authorizer = Authorizer::new(set, mesh, namespace, labels, evaluation);
        Self { modes, authorizer: Arc::new(authorizer), shadows: Vec::new() }
    }

    /// The ports whose mode differs between the two and is DISABLE in one of them; `None` stands for every port without a mode
    /// of its own.
    #[must_use]
    pub fn ports_to_or_from_disable(&self, other: &Self) -> BTreeSet<Option<u16>> {
        let differ = |ours: &Decided, theirs: &Decided| {
            ours.mode != theirs.mode && [ours.mode, theirs.mode].contains(&Mode::Disable)
        };
        let named = self.ports().chain(other.ports());
        let mut ports: BTreeSet<_> =
            named.filter(|port| differ(self.mode(*port), other.mode(*port))).map(Some).collect();
        if differ(self.workload(), other.workload()) {
            ports.insert(None);
        }
        ports
    }

    /// The same policy with these ports PERMISSIVE; `None` stands for every port without a mode of its own. It admits mTLS and
    /// plaintext while clients change from the one to the other.
    #[must_use]
    pub fn permissive_on(mut self, ports: &BTreeSet<Option<u16>>) -> Self {
        let permissive = |decided: &Decided| Arc::new(Decided { mode: Mode::Permissive, ..decided.clone() });
        for port in ports.iter().flatten() {
            let decided = permissive(self.mode(*port));
            self.modes.ports.insert(*port, decided);
        }
        if ports.contains(&None) {
            self.modes.workload = permissive(&self.modes.workload);
        }
        self
    }

    /// The same policy with further shadows.
    #[must_use]
    pub fn with_shadows(mut self, shadows: impl IntoIterator<Item = Shadow>) -> Self {
        self.shadows.extend(shadows);
        self
    }

    /// The policies that are evaluated beside this one, and not enforced.
    #[must_use]
    pub fn shadows(&self) -> &[Shadow] {
        &self.shadows
    }

    /// Who is authorized.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// The mode of a port.
    #[must_use]
    pub fn mode(&self, port: u16) -> &Decided {
        self.modes.mode(port)
    }

    /// The mode of every port without a mode of its own.
    #[must_use]
    pub fn workload(&self) -> &Decided {
        &self.modes.workload
    }

    /// The ports with a mode of their own.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        self.modes.ports.keys().copied()
    }
}
