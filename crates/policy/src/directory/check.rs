//! What only shows when all documents are read: selections that cannot work, entries that compete, rules without a service.

use std::collections::{BTreeSet, HashMap, HashSet};

use portcullis_yaml::{Diagnostic, Position};

use crate::directory::host::{self, HostPattern};
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
    for entry in set.service_entries() {
        let workloads = workloads_of(entry, &index, &mut checked);
        checked.warnings.extend(without_identity(entry, &workloads));
        hints.add(entry, &workloads);
    }
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

/// An endpoint with a sidecar that nobody can be verified at: connections to it are refused.
fn without_identity(entry: &ServiceEntry, workloads: &[&WorkloadSpec]) -> Option<Diagnostic> {
    let named = entry.subject_alt_names.iter().any(|name| portcullis_identity::SpiffeId::parse(name).is_ok());
    if entry.location == Location::MeshExternal || named {
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
