//! Where each namespace is, from the policies and the readiness report.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Mode as ApiMode, PortMode, Timestamp};
use portcullis_policy::{EffectivePolicy, Evaluation, Mode, PeerAuthentication};

use crate::migrate::model::{Blocker, Namespace, Options, Standing, Suggestion};
use crate::readiness::{Level, Port, PortReadiness, Readiness, is_of_workload, lacks};
use crate::text::{clean, count, length};

/// The mode of the mesh or of a namespace, and who says so.
pub(super) struct Decided {
    pub(super) mode: Mode,
    pub(super) decided_by: Option<String>,
    pub(super) seconds: Option<u64>,
}

/// What the folder says for workloads of a namespace without a policy of their own.
fn decided(options: &Options<'_>, namespace: &str) -> Decided {
    let none = BTreeMap::new();
    let policy = EffectivePolicy::evaluate(options.set, options.mesh, namespace, &none, Evaluation::Enforced);
    let decided = policy.workload();
    let by = &decided.by;
    let written = by.file.as_ref().zip(by.line).map(|(file, line)| format!("{} ({file}:{line})", decided.label));
    Decided {
        mode: decided.mode,
        decided_by: written,
        seconds: seconds(options, by.namespace.as_deref(), by.name.as_deref()),
    }
}

/// For how long the policy has been there.
fn seconds(options: &Options<'_>, namespace: Option<&str>, name: Option<&str>) -> Option<u64> {
    let is = |it: &&PeerAuthentication| Some(it.namespace.as_str()) == namespace && Some(it.name.as_str()) == name;
    let policy = options.set.policies().iter().find(is)?;
    let created = policy.created.map(|created| Timestamp::from_unix(created.unix_timestamp()));
    let since = created.or_else(|| options.written.get(&policy.file).copied())?;
    Some(options.now.seconds_since(since))
}

/// The mode of the mesh: what holds in a namespace without any policy.
pub(super) fn mesh(options: &Options<'_>) -> Decided {
    decided(options, &options.mesh.root_namespace)
}

/// Every namespace with a sidecar.
pub(super) fn namespaces(options: &Options<'_>) -> Vec<Namespace> {
    let readiness = options.readiness;
    let observed = readiness.items.iter().map(|port| &port.workload);
    let names: BTreeSet<&str> =
        observed.chain(&readiness.without_ports).map(|workload| workload.namespace.as_str()).collect();
    names.into_iter().map(|name| namespace(options, name)).collect()
}

fn namespace(options: &Options<'_>, name: &str) -> Namespace {
    let Decided { mode, decided_by, seconds } = decided(options, name);
    let ports: Vec<&Port> = options.readiness.items.iter().filter(|port| port.workload.namespace == name).collect();
    let (own, switched): (Vec<&Port>, Vec<&Port>) = ports.iter().partition(|port| is_exception(port));
    let blocked = switched.iter().filter(|port| port.verdict == PortReadiness::NotReady);
    let mut blockers: Vec<Blocker> = blocked.flat_map(|port| blockers(port)).collect();
    blockers.sort();
    let unknown: Vec<String> = switched.iter().filter_map(|port| unknown(options, port, mode)).collect();
    let standing = match () {
        () if mode == Mode::Strict => Standing::Done,
        () if mode == Mode::Disable => Standing::Disabled,
        () if !blockers.is_empty() => Standing::Blocked,
        () if !options.readiness.unanswered.is_empty() => Standing::Unreachable,
        () if !unknown.is_empty() => Standing::Unknown,
        () => Standing::Ready,
    };
    Namespace {
        namespace: name.to_owned(),
        mode,
        decided_by,
        mode_seconds: seconds,
        standing,
        ports: ports.len(),
        connections: ports
            .iter()
            .map(|port| port.mtls_connections.saturating_add(port.other_connections))
            .fold(0, u64::saturating_add),
        blockers: if mode == Mode::Strict { Vec::new() } else { blockers },
        unknown: if mode == Mode::Strict { Vec::new() } else { unknown },
        exceptions: kept(&own, true, options),
        undocumented: kept(&own, false, options),
        undocumented_status: undocumented(&own).map(|port| options.readiness.status_of(port)).max(),
    }
}

/// Whether a policy of the workload decides the mode of the port, so that a policy of the namespace does not change it.
fn is_exception(port: &Port) -> bool {
    !port.modes.is_empty() && port.modes.iter().all(is_of_workload)
}

/// Ports that a policy of the workload keeps below STRICT, and not as a documented exception.
fn undocumented<'p>(own: &'p [&'p Port]) -> impl Iterator<Item = &'p Port> {
    own.iter().copied().filter(|port| !matches!(port.verdict, PortReadiness::Enforced | PortReadiness::Exception))
}

/// The ports that policies of workloads keep below STRICT, documented or not.
fn kept(own: &[&Port], documented: bool, options: &Options<'_>) -> Vec<String> {
    let wanted =
        own.iter().filter(|port| port.verdict != PortReadiness::Enforced && port.exception.is_some() == documented);
    wanted.filter_map(|port| exception(port, options.now)).collect()
}

fn exception(port: &Port, now: Timestamp) -> Option<String> {
    let weak = port.modes.iter().find(|mode| mode.mode != ApiMode::Strict)?;
    let terms = match &port.exception {
        Some(exception) => exception.terms(now),
        None => lacks(&weak.decided_by, now).join(", "),
    };
    let by = clean(&weak.decided_by.label());
    Some(format!("{}:{} {} ({by}; {terms})", port.workload.name, port.port, weak.mode.as_str()))
}

fn blockers(port: &Port) -> Vec<Blocker> {
    let named = |client: &crate::readiness::Client| Blocker {
        client: client.shown(),
        workload: port.workload.name.clone(),
        port: port.port,
        last_seen: client.last_seen,
    };
    port.clients.iter().map(named).collect()
}

/// Why it is not known whether the port may be switched.
fn unknown(options: &Options<'_>, port: &Port, mode: Mode) -> Option<String> {
    let least = options.readiness.min_observation_seconds;
    let label = format!("{}:{}", port.workload.name, port.port);
    let differs = |it: &PortMode| it.mode.as_str() != mode.as_str();
    if let Some(other) = port.modes.iter().find(|it| differs(it)) {
        let has = other.mode.as_str();
        return Some(format!(
            "{label} is {has} at its sidecar, and {mode} by the policies of this folder: it has not read them yet, or reads others"
        ));
    }
    match port.verdict {
        PortReadiness::NoData => Some(format!("{label}: no connection was let through in the window")),
        PortReadiness::Ready if port.observed_seconds < least => {
            Some(format!("{label}: observed for {} of {}", length(port.observed_seconds), length(least)))
        }
        PortReadiness::Ready | PortReadiness::Enforced | PortReadiness::Exception | PortReadiness::NotReady => None,
    }
}

/// The lowest confidence of the ports of a namespace.
pub(super) fn confidence(readiness: &Readiness, namespace: &str) -> Level {
    let of = readiness.items.iter().filter(|port| port.workload.namespace == namespace);
    of.map(|port| port.confidence.level).min().unwrap_or(Level::High)
}

/// A policy without a selector, in the place of the one that holds already.
pub(super) fn suggestion(options: &Options<'_>, namespace: &str, mode: Mode) -> Suggestion {
    let of_scope =
        options.set.policies().iter().filter(|it| it.namespace == namespace && it.selector.is_empty() && !it.dry_run);
    let held = of_scope.reduce(|one, other| if other.precedes(one) { other } else { one });
    let name = held.map_or_else(|| "default".to_owned(), |it| it.name.clone());
    Suggestion { namespace: namespace.to_owned(), name, mode, forced: None }
}

/// Policies of namespaces that say STRICT as the mesh does, and nothing else.
pub(super) fn redundant(options: &Options<'_>) -> Vec<String> {
    let root = &options.mesh.root_namespace;
    let says_the_same = |it: &&PeerAuthentication| {
        it.namespace != *root && it.selector.is_empty() && !it.dry_run && it.mode == Some(Mode::Strict)
    };
    let found = options.set.policies().iter().filter(says_the_same);
    found.map(|it| format!("{}/{}", it.namespace, it.name)).collect()
}

/// `3 clients`.
pub(super) fn clients(number: usize) -> String {
    count(number as u64, "client")
}
