//! Reads a ServiceEntry, by the rules of Istio's validation and some of our own.

use std::collections::BTreeMap;

use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::cidr::Cidr;
use crate::directory::export::{self, ExportRules, ExportTo};
use crate::directory::host::{self, HostPattern};
use crate::directory::ports::PortSpec;
use crate::directory::read::{self, DUPLICATE_VALUE, Report};
use crate::directory::read_ports::{self, PortList};
use crate::directory::service_entry::{Location, Resolution, ServiceEntry, ServiceHost};
use crate::directory::workload_entry::{EndpointAddress, WorkloadSpec, read_workload};
use crate::resource::ReadResource;
use crate::spec;

const FIELDS: &[&str] = &[
    "hosts",
    "addresses",
    "ports",
    "location",
    "resolution",
    "endpoints",
    "workloadSelector",
    "exportTo",
    "subjectAltNames",
];

const LOCATIONS: &[(&str, Location)] =
    &[("MESH_EXTERNAL", Location::MeshExternal), ("MESH_INTERNAL", Location::MeshInternal)];

const RESOLUTIONS: &[(&str, Resolution)] = &[
    ("NONE", Resolution::None),
    ("STATIC", Resolution::Static),
    ("DNS", Resolution::Dns),
    ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
];

/// The fields of `spec`.
struct Spec {
    hosts: Vec<ServiceHost>,
    addresses: Vec<Cidr>,
    ports: Vec<PortSpec>,
    location: Location,
    resolution: Resolution,
    endpoints: Vec<WorkloadSpec>,
    workload_selector: Option<BTreeMap<String, String>>,
    export_to: ExportTo,
    subject_alt_names: Vec<String>,
}

/// Reads one document.
/// `ports` is whether they must be listed.
pub(crate) fn read(root: &Cursor<'_>, file: &str, ports: PortList) -> ReadResource<ServiceEntry> {
    let read_spec = |at: &Cursor<'_>, _: &Fields<'_>, namespace: &str, report: &mut Report| {
        read_spec(at, namespace, ports, &mut report.problems, &mut report.warnings)
    };
    read::document(root, file, read_spec, |meta, spec| {
        let Spec {
            hosts,
            addresses,
            ports,
            location,
            resolution,
            endpoints,
            workload_selector,
            export_to,
            subject_alt_names,
        } = spec;
        ServiceEntry {
            meta,
            hosts,
            addresses,
            ports,
            location,
            resolution,
            endpoints,
            workload_selector,
            export_to,
            subject_alt_names,
        }
    })
}

fn read_spec(
    at: &Cursor<'_>,
    namespace: &str,
    port_list: PortList,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Option<Spec> {
    let fields = at.fields(FIELDS, problems)?;
    let location = fields.get("location");
    let location = location.map(|at| read::choice(&at, "location", LOCATIONS, "unsupported-location", problems));
    // Without the resolution it is unknown what else is allowed; its own error is enough.
    let resolution = match fields.get("resolution") {
        Some(at) => read::choice(&at, "resolution", RESOLUTIONS, "unsupported-resolution", problems),
        None => Some(Resolution::default()),
    };
    let ports = read_ports::read(&fields, resolution, port_list, problems);
    let hosts = read_hosts(&fields, namespace, resolution, problems);
    if let Some(at) = fields.get("hosts")
        && hosts.len() > 1
        && !matches!(resolution, None | Some(Resolution::None))
        && (ports.is_empty() || ports.iter().any(|port| !port.protocol.names_host()))
    {
        let message =
            "several hosts cannot be told apart on a TCP port, so Istio refuses them; write an entry for each";
        at.report("hosts-not-told-apart", message, problems);
    }
    let addresses = read_addresses(&fields, resolution, problems);
    let endpoints = read_endpoints(&fields, resolution, &ports, problems);
    let workload_selector = read_selector(&fields, resolution, problems);
    let export_to = export::read(&fields, namespace, ExportRules::ServiceEntry, problems);
    let location = location.flatten().unwrap_or_default();
    let subject_alt_names = read_subject_alt_names(&fields, location, problems, warnings);
    let nowhere = endpoints.is_empty() && workload_selector.is_none();
    if resolution == Some(Resolution::Static) && nowhere && fields.get("endpoints").is_none() {
        let message = "resolution STATIC without endpoints: connections to these hosts are refused; add endpoints or a \
                       workloadSelector";
        at.report("no-endpoints", message, warnings);
    }
    Some(Spec {
        hosts,
        addresses,
        ports,
        location,
        resolution: resolution?,
        endpoints,
        workload_selector,
        export_to,
        subject_alt_names,
    })
}

fn read_hosts(
    fields: &Fields<'_>,
    namespace: &str,
    resolution: Option<Resolution>,
    problems: &mut Problems,
) -> Vec<ServiceHost> {
    let mut hosts: Vec<ServiceHost> = Vec::new();
    for at in read::required_items(fields, "hosts", problems) {
        let Some(text) = read::text(&at, problems) else { continue };
        let pattern = HostPattern::parse(text, namespace).filter(|pattern| pattern.to_string() != "*");
        let Some(pattern) = pattern else {
            let why = if text == "*" {
                "\"*\" would be every host; name a domain, such as *.example.com".to_owned()
            } else {
                format!("\"{}\" is not the name of a host, nor *. with a name behind it", printable(text))
            };
            at.report("invalid-host", why, problems);
            continue;
        };
        if pattern.name().is_none() && !matches!(resolution, None | Some(Resolution::None)) {
            let message = "a wildcard has no addresses of its own; write resolution: NONE, or each name";
            at.report("wildcard-host", message, problems);
        }
        if hosts.iter().any(|known| known.pattern == pattern) {
            at.report(DUPLICATE_VALUE, format!("{pattern} is in this list already; remove one"), problems);
        }
        let written = if pattern.name().is_some() { host::canonical(text) } else { pattern.to_string() };
        hosts.push(ServiceHost { written: written.into(), pattern });
    }
    hosts
}

fn read_addresses(fields: &Fields<'_>, resolution: Option<Resolution>, problems: &mut Problems) -> Vec<Cidr> {
    let Some(at) = fields.get("addresses") else { return Vec::new() };
    let mut addresses = Vec::new();
    for (item, text) in read::strings(&at, problems) {
        let Some(range) = Cidr::parse_lenient(text) else {
            let message = format!("\"{}\" is not an IP address, nor a range such as 10.0.0.0/8", printable(text));
            item.report("invalid-address", message, problems);
            continue;
        };
        if text.contains('/') && resolution.is_some_and(Resolution::is_dns) {
            let message = "a range goes with resolution NONE or STATIC only; write single addresses";
            item.report("range-with-dns", message, problems);
        }
        if addresses.contains(&range) {
            item.report(DUPLICATE_VALUE, format!("{range} is in this list already; remove one"), problems);
        }
        addresses.push(range);
    }
    addresses
}

fn read_endpoints(
    fields: &Fields<'_>,
    resolution: Option<Resolution>,
    ports: &[PortSpec],
    problems: &mut Problems,
) -> Vec<WorkloadSpec> {
    let Some(list) = fields.get("endpoints") else { return Vec::new() };
    if fields.get("workloadSelector").is_some() {
        let message = "endpoints are listed or selected, not both; remove endpoints or workloadSelector";
        list.report("endpoints-and-selector", message, problems);
    }
    let items = list.items(problems).unwrap_or_default();
    if resolution == Some(Resolution::None) && !items.is_empty() {
        let message = "resolution NONE keeps the dialled address, so endpoints have no effect; remove them, or write \
                       resolution: STATIC or DNS";
        list.report("endpoints-with-none", message, problems);
    }
    if resolution == Some(Resolution::DnsRoundRobin) && items.len() > 1 {
        let message = "resolution DNS_ROUND_ROBIN has one name; keep one endpoint, or write resolution: DNS";
        list.report("too-many-endpoints", message, problems);
    }
    let mut endpoints = Vec::new();
    for at in items {
        let Some(endpoint) = read_workload(&at, BTreeMap::new(), problems) else { continue };
        if resolution == Some(Resolution::Static) && matches!(endpoint.address, EndpointAddress::Name(_)) {
            let message = "resolution STATIC needs an IP address; write one, or resolution: DNS";
            at.report("endpoint-needs-ip", message, problems);
        }
        for name in endpoint.ports.keys() {
            // A faulty list of ports has its own messages.
            if !ports.is_empty() && !ports.iter().any(|port| *port.name == **name) {
                let message = format!("\"{}\" is not the name of one of spec.ports", printable(name));
                at.report("unknown-port-name", message, problems);
            }
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn read_selector(
    fields: &Fields<'_>,
    resolution: Option<Resolution>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let at = fields.get("workloadSelector")?;
    if resolution == Some(Resolution::DnsRoundRobin) {
        let message = "resolution DNS_ROUND_ROBIN has one name; list it under endpoints";
        at.report("too-many-endpoints", message, problems);
    }
    let labels = at.fields(&["labels"], problems)?.get("labels");
    let labels = labels.map_or_else(|| Some(BTreeMap::new()), |at| spec::read_label_map(&at, problems))?;
    if labels.is_empty() {
        let message = "selects by no label, so every workload of the namespace would serve these hosts; name labels";
        at.report("selector-without-labels", message, problems);
    }
    Some(labels)
}

fn read_subject_alt_names(
    fields: &Fields<'_>,
    location: Location,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Vec<String> {
    let Some(at) = fields.get("subjectAltNames") else { return Vec::new() };
    let names = read::strings(&at, problems);
    if location == Location::MeshInternal {
        for (item, text) in &names {
            read::warn_unless_spiffe_id(item, text, warnings);
        }
    }
    names.into_iter().map(|(_, text)| text.to_owned()).collect()
}
