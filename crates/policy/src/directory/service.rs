//! A service as one client sees it: its ports, and the endpoints of each.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cidr::Cidr;
use crate::directory::destination_rule::{LoadBalancer, OutlierDetection};
use crate::directory::host::HostPattern;
use crate::directory::locality::Locality;
use crate::directory::ports::{EVERY_PORT, Protocol};
use crate::directory::resource::{ResourceMeta, RuleRef};
use crate::directory::service_entry::{Location, Resolution};
use crate::directory::transport::Transport;
use crate::directory::workload_entry::EndpointAddress;

/// One host of a ServiceEntry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Service {
    /// Its full name.
    pub host: HostPattern,
    /// The name as the ServiceEntry has it: a short one is resolved as it is.
    pub written: Arc<str>,
    /// The ServiceEntry.
    pub entry: ResourceMeta,
    /// Where it runs.
    pub location: Location,
    /// How its endpoints are found.
    pub resolution: Resolution,
    /// Its virtual addresses.
    pub addresses: Vec<Cidr>,
    /// Its ports, by number.
    pub ports: Vec<Arc<ServicePort>>,
    /// The ports of each subset.
    pub subsets: BTreeMap<Arc<str>, Vec<Arc<ServicePort>>>,
    /// The DestinationRule that holds for it.
    pub rule: Option<RuleRef>,
}

impl Service {
    /// The full name: for logs and metrics.
    #[must_use]
    pub fn label(&self) -> String {
        self.host.to_string()
    }

    /// Its port of that number, or the one that stands for every port; of a subset if one is named.
    #[must_use]
    pub fn port(&self, number: u16, subset: Option<&str>) -> Option<&Arc<ServicePort>> {
        self.numbered_port(number, subset).map(|(_, port)| port)
    }

    /// The port with its index.
    pub(super) fn numbered_port(&self, number: u16, subset: Option<&str>) -> Option<(usize, &Arc<ServicePort>)> {
        let ports = match subset {
            Some(name) => self.subsets.get(name)?,
            None => &self.ports,
        };
        let of = |number: u16| ports.binary_search_by_key(&number, |port| port.number).ok();
        let at = of(number).or_else(|| of(EVERY_PORT))?;
        Some((at, ports.get(at)?))
    }
}

/// One port of a service, or of a subset of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServicePort {
    /// The port that clients dial; [`EVERY_PORT`] for all that are not listed by themselves.
    pub number: u16,
    /// Its name.
    pub name: Arc<str>,
    /// What it is said to carry.
    pub protocol: Protocol,
    /// By address and port. Empty with resolution NONE, unless workloads are selected.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// With resolution NONE: how the dialled address is reached.
    pub original: Option<Transport>,
    /// How one of several endpoints is chosen.
    pub load_balancer: LoadBalancer,
    /// When an endpoint is left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
}

/// One address that serves a port of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// Where it is.
    pub address: EndpointAddress,
    /// The port on which it listens; [`EVERY_PORT`]: the one that was dialled.
    pub port: u16,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it runs.
    pub locality: Option<Locality>,
    /// How far it is from the client: 0 in the same subzone, 1 zone, 2 region, 3 elsewhere or unknown. 0 for all if the client's
    /// locality is not known.
    pub priority: u8,
    /// Its share among endpoints of one priority, at least 1.
    pub weight: u32,
    /// Its network.
    pub network: Option<Arc<str>>,
    /// Its service account.
    pub service_account: Option<Arc<str>>,
    /// Whether it accepts mTLS.
    pub has_sidecar: bool,
    /// Whether mTLS with it may go through an HBONE tunnel: the connection, the identities that may answer and the policies are the
    /// same.
    pub takes_hbone: bool,
    /// How it is reached.
    pub transport: Transport,
}
