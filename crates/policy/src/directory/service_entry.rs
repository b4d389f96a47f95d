//! A ServiceEntry: hosts, their ports, and where they are served.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::cidr::Cidr;
use crate::directory::export::ExportTo;
use crate::directory::host::HostPattern;
use crate::directory::ports::PortSpec;
use crate::directory::resource::ResourceMeta;
use crate::directory::workload_entry::WorkloadSpec;

/// A valid ServiceEntry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceEntry {
    /// What it is called, and where it is written.
    pub meta: ResourceMeta,
    /// `spec.hosts`; never empty.
    pub hosts: Vec<ServiceHost>,
    /// `spec.addresses`: virtual addresses and ranges.
    pub addresses: Vec<Cidr>,
    /// `spec.ports`; never empty, numbers and names are unique.
    pub ports: Vec<PortSpec>,
    /// `spec.location`.
    pub location: Location,
    /// `spec.resolution`.
    pub resolution: Resolution,
    /// `spec.endpoints`.
    pub endpoints: Vec<WorkloadSpec>,
    /// `spec.workloadSelector.labels`: WorkloadEntries of the same namespace are the endpoints.
    pub workload_selector: Option<BTreeMap<String, String>>,
    /// `spec.exportTo`.
    pub export_to: ExportTo,
    /// `spec.subjectAltNames`.
    pub subject_alt_names: Vec<String>,
}

/// One of `spec.hosts`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceHost {
    /// The name as it is resolved: a short one stays short.
    pub written: Arc<str>,
    /// The full name.
    pub pattern: HostPattern,
}

/// Where a service runs.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    /// Outside of the mesh: no mTLS unless a DestinationRule says so. The default.
    #[default]
    MeshExternal,
    /// In the mesh.
    MeshInternal,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    /// The address that the app dialled. The default.
    #[default]
    None,
    /// The addresses of the endpoints.
    Static,
    /// The addresses to which the names of the endpoints, or the hosts, resolve.
    Dns,
    /// The addresses to which the one name resolves, as with DNS.
    DnsRoundRobin,
}

impl Resolution {
    /// Whether names are resolved.
    #[must_use]
    pub const fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }
}
