//! Istio's ServiceEntry, WorkloadEntry and DestinationRule: which services there are, and how a client reaches each endpoint.
//!
//! Documents are read as strictly as policies: what Istio knows and has no meaning here is refused by name. From a whole set and
//! one client a [`Directory`] is made: the services that the client sees, each endpoint with its [`Transport`], filed by address
//! and by name. It is pure: names are resolved by the caller, which passes what they resolve to.

mod alike;
mod build;
mod check;
mod client;
mod decision;
mod destination_rule;
mod export;
mod host;
mod index;
mod labels;
mod locality;
mod lookup;
mod modes;
mod overview;
mod port_hints;
mod ports;
mod read;
mod read_destination_rule;
mod read_ports;
mod read_service_entry;
mod read_tls;
mod resource;
mod rules;
mod service;
mod service_entry;
mod transport;
mod view;
mod workload_entry;

pub(crate) use check::check;
pub use client::Client;
pub use destination_rule::{
    ClientTls, DestinationRule, LoadBalancer, OutlierDetection, ServerCheck, SubsetSpec, TrafficPolicy, TrafficSettings,
};
pub use export::ExportTo;
pub use host::HostPattern;
pub use locality::Locality;
pub use lookup::{Choice, Found, Lookup};
pub use overview::{
    DirectoryOverview, EndpointOverview, LookupOverview, PortOverview, RuleOverview, ServiceOverview, TransportOverview,
};
pub use ports::{EVERY_PORT, PortSpec, Protocol};
pub(crate) use read_destination_rule::read as read_destination_rule;
pub(crate) use read_ports::PortList;
pub(crate) use read_service_entry::read as read_service_entry;
pub use resource::{ResourceMeta, RuleRef};
pub use service::{Endpoint, Service, ServicePort};
pub use service_entry::{Location, Resolution, ServiceEntry, ServiceHost};
pub use transport::{MtlsReason, NoIdentities, OriginationMode, PlaintextReason, TlsOrigination, Transport};
pub use view::Directory;
pub(crate) use workload_entry::read as read_workload_entry;
pub use workload_entry::{EndpointAddress, WorkloadEntry, WorkloadSpec};
