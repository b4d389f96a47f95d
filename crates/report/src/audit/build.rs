//! From policies to exceptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use portcullis_api::{DecidingPolicy, Direction, Observations, PortMode, Timestamp, Transport};
use portcullis_policy::directory::{ClientTls, DestinationRule, Location, ResourceMeta, TrafficPolicy};
use portcullis_policy::{Documentation, MeshSettings, Mode, PeerAuthentication, PolicySet};

use crate::audit::baseline::Baseline;
use crate::audit::model::{Audit, AuditStatus, Exception, Problem, Usage};
use crate::input::{Answer, split};
use crate::text::{clean, clean_long};

/// What an audit is made of.
#[derive(Clone, Copy, Debug)]
pub struct AuditInput<'a> {
    /// The policies.
    pub set: &'a PolicySet,
    /// The settings of the mesh.
    pub mesh: &'a MeshSettings,
    /// Where they are written, for messages; empty if nowhere.
    pub mesh_source: &'a str,
    /// What sidecars observed; none if none was asked.
    pub answers: Option<&'a [Answer]>,
    /// Only exceptions of this namespace.
    pub namespace: Option<&'a str>,
    /// What is compared with.
    pub baseline: Option<&'a Baseline>,
    /// The time.
    pub now: Timestamp,
}

impl Audit {
    /// Every exception.
    #[must_use]
    pub fn new(input: &AuditInput<'_>) -> Self {
        let mut items = exceptions(input);
        items.retain(|item| input.namespace.is_none_or(|namespace| namespace == item.namespace));
        let (answered, unanswered) = split(input.answers.unwrap_or_default());
        if !answered.is_empty() {
            let used = usage(&answered);
            for item in &mut items {
                item.used = usage_of(item, &used);
            }
        }
        items.sort_by(|one, other| order(one).cmp(&order(other)));
        let drift = input.baseline.map(|baseline| baseline.compare(&items, input.namespace));
        let status = match () {
            () if drift.as_ref().is_some_and(|drift| !drift.is_empty()) => AuditStatus::Drift,
            () if items.iter().any(|item| !item.problems.is_empty()) => AuditStatus::Findings,
            () if !unanswered.is_empty() => AuditStatus::Unreachable,
            () => AuditStatus::Clean,
        };
        Self { as_of: input.now, status, items, drift, is_observed: input.answers.is_some(), unanswered }
    }
}

fn order(item: &Exception) -> (&str, &str, &str, &str) {
    (&item.namespace, item.kind, &item.name, &item.scope)
}

fn exceptions(input: &AuditInput<'_>) -> Vec<Exception> {
    let AuditInput { set, mesh, now, .. } = *input;
    // Break-glass ends by itself, and is one until then; one that has ended is to be removed.
    let break_glass = set.break_glass().iter().map(|it| &it.policy);
    let mut found: Vec<Exception> =
        set.policies().iter().chain(break_glass).flat_map(|policy| peer(policy, mesh, now)).collect();
    found.extend(default_mode(input));
    for policy in set.authorization_policies() {
        let about = About {
            kind: "AuthorizationPolicy",
            namespace: &policy.namespace,
            name: &policy.name,
            selector: &policy.selector,
            documentation: &policy.documentation,
            created: policy.created.map(|created| created.unix_timestamp()),
            file: &policy.file,
            line: policy.line,
        };
        let scope = scope(&policy.namespace, &policy.selector, mesh);
        if policy.dry_run {
            found.push(about.exception(scope, "DRY-RUN".to_owned(), now));
        } else if policy.documentation.expires.is_some() {
            found.push(about.exception(scope, policy.action.as_str().to_owned(), now));
        }
    }
    found.extend(set.destination_rules().iter().flat_map(|rule| client(rule, now)));
    for entry in set.service_entries() {
        let is_plain = entry.location == Location::MeshInternal && entry.endpoints.iter().any(|one| !one.has_sidecar);
        if is_plain || entry.meta.documentation.expires.is_some() {
            let hosts: Vec<&str> = entry.hosts.iter().map(|host| &*host.written).collect();
            let mode = if is_plain { "NO-SIDECAR" } else { "SERVICE" };
            found.push(About::of("ServiceEntry", &entry.meta).exception(hosts.join(","), mode.to_owned(), now));
        }
    }
    for entry in set.workload_entries() {
        if !entry.spec.has_sidecar || entry.meta.documentation.expires.is_some() {
            let mode = if entry.spec.has_sidecar { "WORKLOAD" } else { "NO-SIDECAR" };
            let scope = entry.spec.address.to_string();
            found.push(About::of("WorkloadEntry", &entry.meta).exception(scope, mode.to_owned(), now));
        }
    }
    found
}

/// A resource, as far as every exception has it.
struct About<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    selector: &'a BTreeMap<String, String>,
    documentation: &'a Documentation,
    created: Option<i64>,
    file: &'a str,
    line: u32,
}

/// What selects nothing.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl<'a> About<'a> {
    fn of(kind: &'static str, meta: &'a ResourceMeta) -> Self {
        Self {
            kind,
            namespace: &meta.namespace,
            name: &meta.name,
            selector: &NO_LABELS,
            documentation: &meta.documentation,
            created: meta.created.map(|created| created.unix_timestamp()),
            file: &meta.file,
            line: meta.line,
        }
    }

    fn of_policy(policy: &'a PeerAuthentication) -> Self {
        Self {
            kind: "PeerAuthentication",
            namespace: &policy.namespace,
            name: &policy.name,
            selector: &policy.selector,
            documentation: &policy.documentation,
            created: policy.created.map(|created| created.unix_timestamp()),
            file: &policy.file,
            line: policy.line,
        }
    }

    fn exception(&self, scope: String, mode: String, now: Timestamp) -> Exception {
        let Documentation { owner, reason, expires } = self.documentation;
        let expires_unix = expires.as_ref().and_then(|expires| expires.unix);
        Exception {
            kind: self.kind,
            namespace: self.namespace.to_owned(),
            name: self.name.to_owned(),
            scope: clean_long(&scope),
            selector: self.selector.iter().map(|(key, value)| (clean(key), clean(value))).collect(),
            mode,
            owner: owner.as_deref().map(clean),
            reason: reason.as_deref().map(clean),
            expires: expires.as_ref().map(|expires| clean(&expires.text)),
            expires_at: expires_unix.map(Timestamp::from_unix),
            created: self.created.map(Timestamp::from_unix),
            written: None,
            file: clean_long(self.file),
            line: self.line,
            problems: problems(self.documentation, now),
            used: None,
        }
    }
}

fn problems(documentation: &Documentation, now: Timestamp) -> Vec<Problem> {
    let mut problems = Vec::new();
    match &documentation.expires {
        Some(expires) if expires.is_over(now.unix()) => problems.push(Problem::Expired),
        Some(expires) if expires.unix.is_none() => problems.push(Problem::NoDate),
        _ => {}
    }
    for missing in documentation.missing() {
        problems.push(match missing {
            "owner" => Problem::NoOwner,
            "reason" => Problem::NoReason,
            _ => Problem::NoEnd,
        });
    }
    problems
}

fn scope(namespace: &str, selector: &BTreeMap<String, String>, mesh: &MeshSettings) -> String {
    let scope = match (selector.is_empty(), namespace == mesh.root_namespace) {
        (false, _) => "workload",
        (true, true) => "mesh",
        (true, false) => "namespace",
    };
    scope.to_owned()
}

const fn is_weak(mode: Mode) -> bool {
    matches!(mode, Mode::Permissive | Mode::Disable)
}

fn peer(policy: &PeerAuthentication, mesh: &MeshSettings, now: Timestamp) -> Vec<Exception> {
    let about = About::of_policy(policy);
    let own_scope = || scope(&policy.namespace, &policy.selector, mesh);
    if policy.dry_run {
        return vec![about.exception(own_scope(), "DRY-RUN".to_owned(), now)];
    }
    let mut found = Vec::new();
    if let Some(mode) = policy.mode.filter(|mode| is_weak(*mode)) {
        found.push(about.exception(own_scope(), mode.as_str().to_owned(), now));
    }
    let ports = policy.ports.iter().filter_map(|(port, mode)| Some((port, mode.filter(|mode| is_weak(*mode))?)));
    found.extend(ports.map(|(port, mode)| about.exception(format!("port {port}"), mode.as_str().to_owned(), now)));
    // What has an end is meant to be looked at when it comes, whatever it is.
    if found.is_empty() && policy.documentation.expires.is_some() {
        found.push(about.exception(own_scope(), policy.mode.map_or("UNSET", Mode::as_str).to_owned(), now));
    }
    found
}

/// That nothing sets a mode for the whole mesh, and `mesh.defaultMode` lets in more than mTLS.
fn default_mode(input: &AuditInput<'_>) -> Option<Exception> {
    let mesh = input.mesh;
    let is_mesh_wide = |policy: &&PeerAuthentication| {
        policy.namespace == mesh.root_namespace && policy.selector.is_empty() && !policy.dry_run
    };
    let wide = input.set.policies().iter().filter(is_mesh_wide);
    let wide = wide.reduce(|first, next| if next.precedes(first) { next } else { first });
    if !is_weak(mesh.default_mode) || wide.is_some_and(|policy| policy.mode.is_some()) {
        return None;
    }
    let default = mesh.default_mode.as_str();
    let none = Documentation::default();
    let about = match wide {
        Some(policy) => About::of_policy(policy),
        None => About {
            kind: "Configuration",
            namespace: &mesh.root_namespace,
            name: "mesh.defaultMode",
            selector: &NO_LABELS,
            documentation: &none,
            created: None,
            file: input.mesh_source,
            line: 0,
        },
    };
    Some(about.exception("mesh".to_owned(), format!("UNSET ({default})"), input.now))
}

/// What a DestinationRule sends without mTLS to a host.
fn client(rule: &DestinationRule, now: Timestamp) -> Vec<Exception> {
    let about = About { selector: &rule.workload_selector, ..About::of("DestinationRule", &rule.meta) };
    let host = rule.host.to_string();
    let mut found = Vec::new();
    let mut add = |policy: &TrafficPolicy, of: &str| {
        let settings =
            std::iter::once((None, &policy.settings)).chain(policy.ports.iter().map(|(port, it)| (Some(*port), it)));
        for (port, settings) in settings {
            if settings.tls.as_deref() == Some(&ClientTls::Disable) {
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                found.push(about.exception(format!("{host}{port}{of}"), "DISABLE".to_owned(), now));
            }
        }
    };
    add(&rule.traffic_policy, "");
    for (name, subset) in &rule.subsets {
        add(&subset.traffic_policy, &format!(" subset {name}"));
    }
    if found.is_empty() && rule.meta.documentation.expires.is_some() {
        found.push(about.exception(host, "RULE".to_owned(), now));
    }
    found
}

/// The deciding policy of a port: its scope, and its name.
type Decider = (String, Option<String>, Option<String>);

/// A port that a policy decides; none for every port that nothing names.
type DecidedPort = (Decider, Option<u16>);

/// What was let through without mTLS, by what decided it.
#[derive(Default)]
struct Used {
    connections: u64,
    last_seen: Option<Timestamp>,
    clients: BTreeSet<String>,
}

fn usage(answers: &[&Observations]) -> BTreeMap<DecidedPort, Used> {
    let mut all: BTreeMap<DecidedPort, Used> = BTreeMap::new();
    for seen in answers {
        let ports: HashMap<Option<u16>, &PortMode> = seen.ports.iter().map(|port| (port.port, port)).collect();
        // Who decides here at all, also where nothing came.
        for port in &seen.ports {
            all.entry((decider(&port.decided_by), port.port)).or_default();
        }
        let inbound = seen.observations.iter().filter(|one| one.direction == Direction::Inbound && one.allowed > 0);
        for one in inbound.filter(|one| one.transport != Transport::Mtls) {
            let Some(port) = ports.get(&Some(one.port)).or_else(|| ports.get(&None)) else { continue };
            let used = all.entry((decider(&port.decided_by), Some(one.port))).or_default();
            used.connections = used.connections.saturating_add(one.allowed);
            used.last_seen = used.last_seen.max(Some(one.last_seen));
            let client = one.peer.identity.clone().or_else(|| one.peer.address.map(|address| address.to_string()));
            used.clients.insert(client.unwrap_or_default());
        }
    }
    all
}

fn decider(by: &DecidingPolicy) -> Decider {
    (by.scope.clone(), by.namespace.clone(), by.name.clone())
}

/// What used one exception. Only sidecars know, and only of modes; none if no sidecar that was asked has it.
fn usage_of(item: &Exception, used: &BTreeMap<DecidedPort, Used>) -> Option<Usage> {
    let is_default = item.mode.starts_with("UNSET");
    if item.kind != "PeerAuthentication" && !is_default || matches!(item.mode.as_str(), "DRY-RUN" | "STRICT" | "UNSET")
    {
        return None;
    }
    let fits = |((scope, namespace, name), port): &DecidedPort| {
        if is_default {
            return scope == "default";
        }
        let is_own = namespace.as_ref() == Some(&item.namespace) && name.as_ref() == Some(&item.name);
        let is_port = port.is_some_and(|port| item.scope == format!("port {port}"));
        is_own && if scope == "port" { is_port } else { !item.scope.starts_with("port ") }
    };
    let (mut usage, mut clients) = (Usage::default(), BTreeSet::new());
    let mut fitting = used.iter().filter(|(by, _)| fits(by)).peekable();
    fitting.peek()?;
    for (_, used) in fitting {
        usage.connections = usage.connections.saturating_add(used.connections);
        usage.last_seen = usage.last_seen.max(used.last_seen);
        clients.extend(&used.clients);
    }
    usage.clients = clients.len() as u64;
    Some(usage)
}
