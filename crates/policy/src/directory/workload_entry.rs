//! A WorkloadEntry, and the endpoints in a ServiceEntry, which have the same fields.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_yaml::{Cursor, Fields, Problems, printable};

use crate::directory::host;
use crate::directory::labels::LabelIndex;
use crate::directory::locality::Locality;
use crate::directory::ports::PortSpec;
use crate::directory::read::{self, Report};
use crate::directory::resource::ResourceMeta;
use crate::metadata::is_dns_label;
use crate::resource::ReadResource;

/// A valid WorkloadEntry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadEntry {
    /// What it is called, and where it is written.
    pub meta: ResourceMeta,
    /// `spec`. Labels of its metadata are among its labels.
    pub spec: WorkloadSpec,
}

/// Where a workload is reached, and as whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadSpec {
    /// `address`.
    pub address: EndpointAddress,
    /// `ports`: the port of the workload by the name of a service port.
    pub ports: BTreeMap<String, u16>,
    /// `labels`.
    pub labels: Arc<BTreeMap<String, String>>,
    /// `network`.
    pub network: Option<Arc<str>>,
    /// `locality`.
    pub locality: Option<Locality>,
    /// `weight`, at least 1.
    pub weight: u32,
    /// `serviceAccount`.
    pub service_account: Option<Arc<str>>,
    /// Whether it accepts mTLS: the label `security.istio.io/tlsMode` or, without it, whether it has a service account. One that takes
    /// HBONE does.
    pub has_sidecar: bool,
    /// Whether it takes HBONE: the label `networking.istio.io/tunnel`.
    pub takes_hbone: bool,
}

impl WorkloadSpec {
    /// The port on which it serves a port of a service: its own for the name of that, else the target port, else the same.
    #[must_use]
    pub fn port(&self, port: &PortSpec) -> u16 {
        self.ports.get(&*port.name).copied().or(port.target_port).unwrap_or(port.number)
    }

    /// A plain endpoint at an address, without a sidecar.
    pub(super) fn plain(address: EndpointAddress) -> Self {
        Self {
            address,
            ports: BTreeMap::new(),
            labels: Arc::default(),
            network: None,
            locality: None,
            weight: 1,
            service_account: None,
            has_sidecar: false,
            takes_hbone: false,
        }
    }
}

/// Where an endpoint is.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum EndpointAddress {
    /// At this address, which is never an IPv4-mapped one.
    Ip(IpAddr),
    /// At the addresses to which this name resolves.
    Name(Arc<str>),
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The label that says whether a workload accepts mTLS.
const TLS_MODE: &str = "security.istio.io/tlsMode";

/// The label that says which tunnel a workload takes. `http` is HBONE, and Istio knows no other.
const TUNNEL: &str = "networking.istio.io/tunnel";
const HBONE: &str = "http";

/// Reads one document.
pub(crate) fn read(root: &Cursor<'_>, file: &str) -> ReadResource<WorkloadEntry> {
    let read_spec = |at: &Cursor<'_>, document: &Fields<'_>, _: &str, report: &mut Report| {
        let problems = &mut report.problems;
        let metadata = document.get("metadata").and_then(|at| at.peek("labels")).filter(|at| !at.is_null());
        let labels = metadata.map(|at| read::labels(&at, problems)).unwrap_or_default();
        read_workload(at, labels, problems)
    };
    read::document(root, file, read_spec, |meta, spec| WorkloadEntry { meta, spec })
}

const FIELDS: &[&str] = &["address", "ports", "labels", "network", "locality", "weight", "serviceAccount"];

/// Reads one workload. The labels of the metadata go before those of the spec, as in Istio.
pub(super) fn read_workload(
    at: &Cursor<'_>,
    metadata: BTreeMap<String, String>,
    problems: &mut Problems,
) -> Option<WorkloadSpec> {
    let fields = at.fields(FIELDS, problems)?;
    let address = fields.require("address", problems).and_then(|at| read_address(&at, problems));
    let ports = fields.get("ports").map(|at| read_ports(&at, problems)).unwrap_or_default();
    let spec_labels = fields.get("labels");
    let mut labels = spec_labels.as_ref().map(|at| read::labels(at, problems)).unwrap_or_default();
    labels.extend(metadata);
    let network = fields.get("network").and_then(|at| read::text(&at, problems)).map(Arc::from);
    let locality = fields.get("locality").and_then(|at| read_locality(&at, problems));
    let weight = fields.get("weight").and_then(|at| read::number(&at, u32::MAX, problems));
    let service_account = fields.get("serviceAccount").and_then(|at| read_service_account(&at, problems));
    let takes_hbone = labels.get(TUNNEL).is_some_and(|tunnel| tunnel == HBONE);
    let has_sidecar = match labels.get(TLS_MODE).map(String::as_str) {
        Some("istio") => true,
        Some("disabled") => false,
        None => service_account.is_some(),
        Some(other) => {
            let message = format!("{TLS_MODE} is \"{}\"; write istio or disabled", printable(other));
            spec_labels.as_ref().unwrap_or(at).report("invalid-tls-mode", message, problems);
            false
        }
    };
    Some(WorkloadSpec {
        address: address?,
        ports,
        labels: Arc::new(labels),
        network,
        locality,
        // As in Istio 0 is the same as nothing.
        weight: weight.unwrap_or(1).max(1),
        service_account,
        // A tunnel is always mTLS.
        has_sidecar: has_sidecar || takes_hbone,
        takes_hbone,
    })
}

fn read_address(at: &Cursor<'_>, problems: &mut Problems) -> Option<EndpointAddress> {
    let text = read::text(at, problems)?;
    if text.starts_with("unix:") {
        let message = "Unix sockets are not supported; write an IP address or the name of a host";
        at.report(read::UNSUPPORTED_FIELD, message, problems);
        return None;
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            let message = format!("{address} is no address of an endpoint; write one that can be dialled");
            at.report("invalid-address", message, problems);
        }
        return Some(EndpointAddress::Ip(address));
    }
    let name = host::name(text);
    if name.is_none() {
        let message = format!("\"{}\" is neither an IP address nor the name of a host", printable(text));
        at.report("invalid-address", message, problems);
    }
    name.map(|name| EndpointAddress::Name(name.into()))
}

fn read_ports(at: &Cursor<'_>, problems: &mut Problems) -> BTreeMap<String, u16> {
    let mut ports = BTreeMap::new();
    for (key, value) in at.entries(problems).unwrap_or_default() {
        if !is_dns_label(key.text()) {
            let message = "is not the name of a port; use lower-case letters, digits and '-'";
            value.report("invalid-port-name", message, problems);
        }
        ports.extend(read::port(&value, problems).map(|port| (key.text().to_owned(), port)));
    }
    ports
}

fn read_locality(at: &Cursor<'_>, problems: &mut Problems) -> Option<Locality> {
    let text = read::text(at, problems)?;
    let locality = Locality::parse(text);
    if locality.is_none() {
        let message = format!("\"{}\" is no locality; write REGION/ZONE/SUBZONE, or the start of it", printable(text));
        at.report("invalid-locality", message, problems);
    }
    locality
}

fn read_service_account(at: &Cursor<'_>, problems: &mut Problems) -> Option<Arc<str>> {
    let text = read::text(at, problems)?;
    // Whatever makes an ID with any namespace and trust domain; neither is known yet.
    let domain = TrustDomain::parse("cluster.local").ok()?;
    if SpiffeId::for_workload(&domain, "x", text).is_err() {
        let message = format!("\"{}\" is not the name of a service account; write only its name", printable(text));
        at.report("invalid-service-account", message, problems);
        return None;
    }
    Some(text.into())
}

/// WorkloadEntries by their labels.
pub(super) type WorkloadIndex<'w> = LabelIndex<'w, &'w WorkloadEntry>;

/// Files all WorkloadEntries.
pub(super) fn index_of(entries: &[Arc<WorkloadEntry>]) -> WorkloadIndex<'_> {
    let mut index = WorkloadIndex::default();
    for entry in entries {
        index.add(&entry.meta.namespace, &entry.spec.labels, entry);
    }
    index
}
