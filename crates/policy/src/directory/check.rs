//! What only shows when all documents are read: selections that cannot work, entries that compete, rules without a service.

use std::collections::{BTreeSet, HashMap, HashSet};

use portcullis_identity::SpiffeId;
use portcullis_yaml::{Diagnostic, Position};

use crate::directory::destination_rule::{ClientTls, DestinationRule};
use crate::directory::host::{self, HostMap, HostPattern};
use crate::directory::port_hints::PortHints;
use crate::directory::resource::ResourceMeta;
use crate::directory::service_entry::{Location, ServiceEntry};
use crate::directory::workload_entry::{EndpointAddress, WorkloadIndex, WorkloadSpec, index_of};
use crate::set::PolicySet;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Checks all entries and rules of a set.
pub(crate) fn check(set: &PolicySet) -> Checked {
    let mut checked = Checked::default();
    if set.service_entries().is_empty() && set.destination_rules().is_empty() {
        return checked;
    }
    let index = index_of(set.workload_entries());
    let mut hints = PortHints::default();
    let mut nameless = Vec::new();
    let mutual = rules_by_host(set, has_mutual);
    for entry in set.service_entries() {
        let workloads = workloads_of(entry, &index, &mut checked);
        if !names_identity(entry) {
            checked.warnings.extend(without_identity(entry, &workloads));
            if workloads.is_empty() || workloads.iter().any(|workload| workload.service_account.is_none()) {
                nameless.push(&**entry);
            }
        }
        checked.warnings.extend(unused_identity(entry, &workloads, &mutual));
        hints.add(entry, &workloads);
    }
    checked.warnings.extend(mutual_without_identity(set, &nameless));
    checked.warnings.extend(rivals(set));
    checked.warnings.extend(rules_without_service(set));
    checked.warnings.extend(hints.warnings(set));
    checked
}

fn about(meta: &ResourceMeta, field: &str, reason: &'static str, message: String) -> Diagnostic {
    let position = Position { line: meta.line, column: meta.column };
    let message = format!("{} {message}", meta.label());
    Diagnostic { field: field.to_owned(), ..Diagnostic::at(&meta.file, position, reason, message) }
}

fn workloads_of<'s>(
    entry: &'s ServiceEntry,
    index: &WorkloadIndex<'s>,
    checked: &mut Checked,
) -> Vec<&'s WorkloadSpec> {
    let Some(selector) = &entry.workload_selector else { return entry.endpoints.iter().collect() };
    let selected = index.select(&entry.meta.namespace, selector);
    if selected.is_empty() {
        let message = "selects no WorkloadEntry of its namespace, so connections to its hosts are refused".to_owned();
        checked.warnings.push(about(&entry.meta, "spec.workloadSelector", "no-endpoints", message));
    }
    if !entry.resolution.is_dns() {
        let named = selected.iter().filter(|workload| matches!(workload.spec.address, EndpointAddress::Name(_)));
        checked.errors.extend(named.map(|workload| {
            let message = format!(
                "is selected by the ServiceEntry {} ({}:{}), whose resolution needs IP addresses; write one, or resolution: \
                 DNS there",
                entry.meta.label(),
                entry.meta.file,
                entry.meta.line
            );
            about(&workload.meta, "spec.address", "endpoint-needs-ip", message)
        }));
    }
    selected.into_iter().map(|workload| &workload.spec).collect()
}

/// Whether the entry itself says who may answer.
fn names_identity(entry: &ServiceEntry) -> bool {
    let is_workload = |name: &String| SpiffeId::parse(name).is_ok_and(|id| !id.path().is_empty());
    entry.subject_alt_names.iter().any(is_workload)
}

/// Rules with ISTIO_MUTUAL and no names of their own, for endpoints without an identity. Once for each rule; which clients it holds
/// for is not known here.
fn mutual_without_identity(set: &PolicySet, nameless: &[&ServiceEntry]) -> Vec<Diagnostic> {
    let rules = rules_by_host(set, has_mutual_without_names);
    let mut warned = HashSet::new();
    let mut warnings = Vec::new();
    for entry in nameless {
        let found = entry.hosts.iter().filter_map(|host| rules.most_specific(&host.pattern)).flatten();
        for rule in found {
            if warned.insert(std::ptr::from_ref(*rule)) {
                let message = format!(
                    "sets ISTIO_MUTUAL for an endpoint without an identity (of {}, {}:{}), so connections to it are refused; \
                     write its serviceAccount, or SPIFFE IDs in subjectAltNames",
                    entry.meta.label(),
                    entry.meta.file,
                    entry.meta.line
                );
                warnings.push(about(&rule.meta, "spec.trafficPolicy", "no-identity", message));
            }
        }
    }
    warnings
}

fn rules_by_host(set: &PolicySet, is_wanted: fn(&DestinationRule) -> bool) -> HostMap<Vec<&DestinationRule>> {
    let mut rules: HostMap<Vec<&DestinationRule>> = HostMap::default();
    for rule in set.destination_rules().iter().filter(|rule| is_wanted(rule)) {
        rules.entry(&rule.host).push(rule);
    }
    rules
}

fn has_mutual(rule: &DestinationRule) -> bool {
    any_tls(rule, |tls| matches!(tls, ClientTls::IstioMutual { .. }))
}

fn has_mutual_without_names(rule: &DestinationRule) -> bool {
    let without_names = |tls: &ClientTls| matches!(tls, ClientTls::IstioMutual { subject_alt_names, .. } if subject_alt_names.is_empty());
    any_tls(rule, without_names)
}

/// Whether one of the rule's settings, at any level, is such a one.
fn any_tls(rule: &DestinationRule, is_wanted: impl Fn(&ClientTls) -> bool) -> bool {
    let policies = rule.subsets.values().map(|subset| &subset.traffic_policy).chain([&rule.traffic_policy]);
    let mut settings = policies.flat_map(|policy| policy.ports.values().chain([&policy.settings]));
    settings.any(|settings| settings.tls.as_deref().is_some_and(&is_wanted))
}

/// An identity that is never asked for. Its author probably expects mTLS, and left out the location, whose default is outside.
fn unused_identity(
    entry: &ServiceEntry,
    workloads: &[&WorkloadSpec],
    mutual: &HostMap<Vec<&DestinationRule>>,
) -> Option<Diagnostic> {
    let is_mutual = || entry.hosts.iter().any(|host| mutual.most_specific(&host.pattern).is_some());
    if entry.location == Location::MeshInternal || is_mutual() {
        return None;
    }
    let named = workloads.iter().find_map(|workload| Some((workload, workload.service_account.as_ref()?)));
    let (workload, account) = named?;
    let message = format!(
        "is MESH_EXTERNAL, the default, so the serviceAccount of its endpoint {} ({account}) has no effect: there is no mTLS; \
         write location: MESH_INTERNAL, or a DestinationRule with ISTIO_MUTUAL",
        workload.address
    );
    Some(about(&entry.meta, "spec.location", "external-identity", message))
}

/// An endpoint with a sidecar that nobody can be verified at: connections to it are refused.
fn without_identity(entry: &ServiceEntry, workloads: &[&WorkloadSpec]) -> Option<Diagnostic> {
    if entry.location == Location::MeshExternal {
        return None;
    }
    let mut nameless = workloads.iter().filter(|workload| workload.has_sidecar && workload.service_account.is_none());
    let first = nameless.next()?;
    let others = nameless.count();
    let more = if others == 0 { String::new() } else { format!(" and {others} more") };
    let message = format!(
        "has an endpoint with a sidecar and no identity ({}{more}), so connections to it are refused; write its \
         serviceAccount, or SPIFFE IDs in subjectAltNames",
        first.address
    );
    Some(about(&entry.meta, "", "no-identity", message))
}

/// Entries of one namespace with the same host or address and port. The first one by age is used.
fn rivals(set: &PolicySet) -> Vec<Diagnostic> {
    let mut entries: Vec<&ServiceEntry> = set.service_entries().iter().map(|entry| &**entry).collect();
    entries.sort_by(|one, other| one.meta.by_age(&other.meta));
    let mut known: HashMap<(&str, String, u16), &ServiceEntry> = HashMap::new();
    let mut warnings = Vec::new();
    for entry in entries {
        let hosts = entry.hosts.iter().map(|host| host.pattern.to_string());
        let destinations = hosts.chain(entry.addresses.iter().map(ToString::to_string));
        for destination in destinations.collect::<BTreeSet<_>>() {
            for port in &entry.ports {
                let first = *known.entry((&entry.meta.namespace, destination.clone(), port.number)).or_insert(entry);
                if std::ptr::eq(first, entry) {
                    continue;
                }
                let message = format!(
                    "has {destination} with port {} as {} ({}:{}) has: the older or first by name is used while both are \
                     reached alike, and connections are refused otherwise; remove one",
                    port.number,
                    first.meta.label(),
                    first.meta.file,
                    first.meta.line
                );
                warnings.push(about(&entry.meta, "", "duplicate-destination", message));
            }
        }
    }
    warnings
}

/// Rules whose host no entry has: probably a misspelt name, and TLS that its author counts on is not there.
fn rules_without_service(set: &PolicySet) -> Vec<Diagnostic> {
    let hosts: HashSet<&HostPattern> =
        set.service_entries().iter().flat_map(|entry| &entry.hosts).map(|host| &host.pattern).collect();
    let parents: HashSet<&str> = hosts.iter().flat_map(|host| host::parents(host.text())).collect();
    let fits = |pattern: &HostPattern| {
        hosts.contains(pattern) || pattern.name().is_none() && parents.contains(&**pattern.text())
    };
    let lost = set.destination_rules().iter().filter(|rule| !fits(&rule.host));
    lost.map(|rule| {
        let message = format!("has no effect: no ServiceEntry has the host {}", rule.host);
        about(&rule.meta, "spec.host", "rule-without-service", message)
    })
    .collect()
}
