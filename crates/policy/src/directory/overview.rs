//! The directory for admin pages and `explain`: every service, port and endpoint with how it is reached and why.

use std::sync::Arc;

use serde::Serialize;

use crate::directory::destination_rule::{LoadBalancer, OutlierDetection};
use crate::directory::lookup::{Choice, Found, Lookup};
use crate::directory::ports::Protocol;
use crate::directory::resource::RuleRef;
use crate::directory::service::{Endpoint, Service, ServicePort};
use crate::directory::service_entry::{Location, Resolution};
use crate::directory::transport::Transport;
use crate::directory::view::Directory;

/// All services.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DirectoryOverview {
    /// In the order of their precedence.
    pub services: Vec<ServiceOverview>,
}

/// One service.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceOverview {
    /// Its full name.
    pub host: String,
    /// The ServiceEntry, as `namespace/name`.
    pub entry: String,
    /// The file in which that is written.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
    /// Where the service runs.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its virtual addresses.
    pub addresses: Vec<String>,
    /// The DestinationRule that holds for it, with file and line.
    pub rule: Option<RuleOverview>,
    /// Its ports, then those of its subsets.
    pub ports: Vec<PortOverview>,
}

/// A DestinationRule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct RuleOverview {
    /// `namespace/name`.
    pub rule: String,
    /// The file in which it is written.
    pub file: String,
    /// Its line, from 1.
    pub line: u32,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortOverview {
    /// The port that clients dial.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// What it is said to carry.
    pub protocol: Protocol,
    /// The subset, if it is a port of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// How one of several endpoints is chosen.
    pub load_balancer: LoadBalancer,
    /// When an endpoint is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// With resolution NONE: how the dialled address is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original: Option<TransportOverview>,
    /// By address and port.
    pub endpoints: Vec<EndpointOverview>,
}

/// One endpoint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointOverview {
    /// An IP address, or a name that is resolved.
    pub address: String,
    /// The port on which it listens.
    pub port: u16,
    /// 0 is the nearest.
    pub priority: u8,
    /// Its share among endpoints of one priority.
    pub weight: u32,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its service account.
    pub service_account: Option<String>,
    /// Whether it accepts mTLS.
    pub has_sidecar: bool,
    /// Whether mTLS with it goes through an HBONE tunnel.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub takes_hbone: bool,
    /// How it is reached.
    pub transport: TransportOverview,
}

/// How an endpoint is reached, and why.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportOverview {
    /// `plaintext`, `mtls` or `tls`.
    pub transport: &'static str,
    /// Why, as a stable word.
    pub reason: &'static str,
    /// Why, as a sentence.
    pub why: String,
    /// With mTLS: who may answer. None at all means that connections are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identities: Option<Vec<String>>,
    /// The server name that is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The file of what decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// The answer of a look-up.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LookupOverview {
    /// `found`, `unknown`, `conflict`, `no_subset` or `no_port`.
    pub result: &'static str,
    /// The service, with the port that was found and the endpoints that may be dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceOverview>,
    /// The ServiceEntries that disagree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflict: Vec<String>,
}

impl Directory {
    /// Everything in it.
    #[must_use]
    pub fn overview(&self) -> DirectoryOverview {
        let service = |service: &Arc<Service>| {
            let subsets = service.subsets.iter().flat_map(|(name, ports)| {
                ports.iter().map(move |port| PortOverview::new(port, Some(name), &port.endpoints))
            });
            let ports = service.ports.iter().map(|port| PortOverview::new(port, None, &port.endpoints));
            ServiceOverview::new(service, ports.chain(subsets).collect())
        };
        DirectoryOverview { services: self.services().iter().map(service).collect() }
    }
}

impl Lookup<'_> {
    /// For `explain`.
    #[must_use]
    pub fn overview(&self) -> LookupOverview {
        let service = match self {
            Self::Found(found) => Some(found.overview()),
            Self::Unknown | Self::Conflict(_) | Self::NoSubset | Self::NoPort => None,
        };
        let conflict = match self {
            Self::Conflict(labels) => labels.clone(),
            Self::Found(_) | Self::Unknown | Self::NoSubset | Self::NoPort => Vec::new(),
        };
        LookupOverview { result: self.label(), service, conflict }
    }
}

impl Found<'_> {
    /// The service, with this port and these endpoints only.
    #[must_use]
    pub fn overview(&self) -> ServiceOverview {
        let Found { service, port, choice } = self;
        let is_this = |ports: &[Arc<ServicePort>]| ports.iter().any(|known| Arc::ptr_eq(known, port));
        let subset = service.subsets.iter().find(|(_, ports)| is_this(ports)).map(|(name, _)| name);
        let mut shown = PortOverview::new(port, subset, choice.endpoints());
        if !matches!(choice, Choice::Original(_)) {
            shown.original = None;
        }
        ServiceOverview::new(service, vec![shown])
    }
}

impl ServiceOverview {
    fn new(service: &Service, ports: Vec<PortOverview>) -> Self {
        Self {
            host: service.label(),
            entry: service.entry.label(),
            file: service.entry.file.to_string(),
            line: service.entry.line,
            location: service.location,
            resolution: service.resolution,
            addresses: service.addresses.iter().map(ToString::to_string).collect(),
            rule: service.rule.as_ref().map(RuleOverview::new),
            ports,
        }
    }
}

impl RuleOverview {
    fn new(rule: &RuleRef) -> Self {
        Self { rule: rule.label.to_string(), file: rule.file.to_string(), line: rule.line }
    }
}

impl PortOverview {
    fn new(port: &ServicePort, subset: Option<&Arc<str>>, endpoints: &[Arc<Endpoint>]) -> Self {
        Self {
            number: port.number,
            name: port.name.to_string(),
            protocol: port.protocol,
            subset: subset.map(ToString::to_string),
            load_balancer: port.load_balancer,
            outlier_detection: port.outlier_detection,
            original: port.original.as_ref().map(TransportOverview::new),
            endpoints: endpoints.iter().map(|endpoint| EndpointOverview::new(endpoint)).collect(),
        }
    }
}

impl EndpointOverview {
    fn new(endpoint: &Endpoint) -> Self {
        Self {
            address: endpoint.address.to_string(),
            port: endpoint.port,
            priority: endpoint.priority,
            weight: endpoint.weight,
            locality: endpoint.locality.as_ref().map(ToString::to_string),
            network: endpoint.network.as_ref().map(ToString::to_string),
            service_account: endpoint.service_account.as_ref().map(ToString::to_string),
            has_sidecar: endpoint.has_sidecar,
            takes_hbone: endpoint.takes_hbone,
            transport: TransportOverview::new(&endpoint.transport),
        }
    }
}

impl TransportOverview {
    /// How, and why.
    #[must_use]
    pub fn new(transport: &Transport) -> Self {
        let (identities, sni) = match transport {
            Transport::Plaintext(_) => (None, None),
            Transport::Mtls { identities, sni, .. } => {
                let listed = identities.as_ref().map(|ids| ids.iter().map(ToString::to_string).collect());
                (Some(listed.unwrap_or_default()), Some(sni.to_string()))
            }
            Transport::Originate(origination) => (None, origination.sni.as_ref().map(ToString::to_string)),
        };
        let (file, line) = transport.location().unzip();
        Self {
            transport: transport.label(),
            reason: transport.reason(),
            why: transport.why(),
            identities,
            sni,
            file: file.map(str::to_owned),
            line,
        }
    }
}
