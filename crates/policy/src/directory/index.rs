//! Look-ups that do not depend on the number of services.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::cidr::Cidr;
use crate::directory::alike::Alike;
use crate::directory::host::{self, HostMap};
use crate::directory::lookup::Choice;
use crate::directory::ports::EVERY_PORT;
use crate::directory::service::{Endpoint, Service, ServicePort};
use crate::directory::service_entry::Resolution;
use crate::directory::transport::Transport;
use crate::directory::workload_entry::EndpointAddress;

/// How directly a target is meant by its address or name: an earlier one goes before a later one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Level {
    /// One of the service's own addresses.
    Virtual,
    /// The endpoint's address or name, with the port of the service.
    Endpoint,
    /// The host, which has other names as its endpoints, with the port of the service.
    Host,
    /// The endpoint's address or name, with its own port.
    EndpointPort,
    /// A range of addresses.
    Range,
}

/// Which endpoints of a port a target is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// All of them.
    All,
    /// Those of one name, or at one address.
    Endpoints { start: usize, end: usize },
    /// The dialled address itself.
    Original,
}

/// Where an address or a name leads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) level: Level,
    /// Its index among the services.
    pub(super) service: usize,
    /// The number of the service port.
    pub(super) port: u16,
    pub(super) part: Part,
    pub(super) alike: u32,
    security: Security,
}

/// Whether what a target leads to is secured: both, where endpoints differ, and neither, where there are none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Security {
    secured: bool,
    plaintext: bool,
}

impl Security {
    fn of<'t>(mut transports: impl Iterator<Item = &'t Transport> + Clone) -> Self {
        let plaintext = transports.clone().any(|transport| !transport.is_secured());
        Self { secured: transports.any(Transport::is_secured), plaintext }
    }
}

impl Target {
    /// All of a port.
    fn whole(level: Level, service: usize, port: &ServicePort, alike: u32) -> Self {
        let part = if port.original.is_some() { Part::Original } else { Part::All };
        let endpoints = port.endpoints.iter().map(|endpoint| &endpoint.transport);
        let security = match &port.original {
            Some(transport) => Security::of([transport].into_iter()),
            None => Security::of(endpoints),
        };
        Self { level, service, port: port.number, part, alike, security }
    }

    /// The smaller, the more directly it is meant: a port that is listed, then one that stands for all.
    pub(super) const fn rank(&self) -> (bool, Level) {
        (self.port == EVERY_PORT, self.level)
    }

    /// Whether it would be plaintext although another service, which is not reached alike, would be secured there. A name that
    /// resolves to the address of somebody else must not take the security away.
    pub(super) fn takes_security_from(&self, other: &Self) -> bool {
        self.security.plaintext && other.security.secured && self.service != other.service && self.alike != other.alike
    }

    /// The endpoints that are meant.
    pub(super) fn choice<'d>(&self, port: &'d ServicePort) -> Option<Choice<'d>> {
        match self.part {
            Part::All => Some(Choice::Any(&port.endpoints)),
            Part::Original => port.original.as_ref().map(Choice::Original),
            Part::Endpoints { start, end } => match port.endpoints.get(start..end)? {
                [one] if matches!(one.address, EndpointAddress::Ip(_)) => Some(Choice::One(one)),
                several => Some(Choice::Any(several)),
            },
        }
    }
}

/// A range of addresses, and the service that has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) cidr: Cidr,
    pub(super) service: usize,
}

/// Everything that is looked up.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// By address and port.
    pub(super) addresses: HashMap<(IpAddr, u16), Vec<Target>>,
    /// Ranges of more than one address, the smallest first.
    pub(super) ranges: Vec<Range>,
    /// By name and port: endpoints, and hosts that are resolved.
    pub(super) names: HashMap<Arc<str>, HashMap<u16, Vec<Target>>>,
    /// Of each service: the numbers of its ports.
    alike: Vec<PortNumbers>,
    /// The services of each host.
    pub(super) hosts: HostMap<Vec<usize>>,
    /// By port: names behind which something else than plaintext is expected.
    pub(super) secured: HashMap<u16, BTreeSet<Arc<str>>>,
}

/// Of the ports of one service: which of them are reached alike.
#[derive(Clone, Debug)]
struct PortNumbers {
    ports: Vec<u32>,
    subsets: BTreeMap<Arc<str>, Vec<u32>>,
}

impl PortNumbers {
    fn new(service: &Service, alike: &mut Alike) -> Self {
        let mut numbers = |ports: &[Arc<ServicePort>]| ports.iter().map(|port| alike.port(port)).collect();
        let ports = numbers(&service.ports);
        let subsets = service.subsets.iter().map(|(name, ports)| (Arc::clone(name), numbers(ports))).collect();
        Self { ports, subsets }
    }
}

impl Index {
    /// Of these services, in the order of their precedence.
    pub(super) fn new(services: &[Arc<Service>]) -> Self {
        let (mut index, mut alike) = (Self::default(), Alike::default());
        for (number, service) in services.iter().enumerate() {
            index.hosts.entry(&service.host).push(number);
            for cidr in &service.addresses {
                if !is_single(cidr) {
                    index.ranges.push(Range { cidr: *cidr, service: number });
                }
            }
            let numbers = PortNumbers::new(service, &mut alike);
            for (port, whole) in service.ports.iter().zip(&numbers.ports) {
                index.add_port(number, service, port, *whole, &mut alike);
            }
            index.alike.push(numbers);
        }
        index.ranges.sort_by_key(|range| std::cmp::Reverse(range.cidr.prefix()));
        index
    }

    /// All of a port of a service, or of a subset.
    pub(super) fn whole(
        &self,
        service_number: usize,
        service: &Service,
        port: u16,
        subset: Option<&str>,
        level: Level,
    ) -> Option<Target> {
        let (at, port) = service.numbered_port(port, subset)?;
        let numbers = self.alike.get(service_number)?;
        let numbers = match subset {
            Some(name) => numbers.subsets.get(name)?,
            None => &numbers.ports,
        };
        Some(Target::whole(level, service_number, port, *numbers.get(at)?))
    }

    fn add_port(
        &mut self,
        service_number: usize,
        service: &Service,
        port: &ServicePort,
        number: u32,
        alike: &mut Alike,
    ) {
        let whole = |level| Target::whole(level, service_number, port, number);
        for cidr in service.addresses.iter().filter(|cidr| is_single(cidr)) {
            self.addresses.entry((cidr.network(), port.number)).or_default().push(whole(Level::Virtual));
        }
        let mut start = 0;
        for group in port.endpoints.chunk_by(|one, other| one.address == other.address) {
            let Some(first) = group.first() else { continue };
            let targets = group_targets(service_number, port, start, group, alike);
            start += group.len();
            match &first.address {
                EndpointAddress::Ip(address) => {
                    for (number, target) in targets {
                        self.addresses.entry((*address, number)).or_default().push(target);
                    }
                }
                EndpointAddress::Name(name) => {
                    let secured = group.iter().any(|endpoint| endpoint.transport.is_secured());
                    for (number, target) in targets {
                        self.add_name(name, number, target);
                        if secured {
                            self.secured.entry(number).or_default().insert(Arc::clone(name));
                        }
                    }
                }
            }
        }
        if let Some(name) = resolved_host(service) {
            self.add_name(name, port.number, whole(Level::Host));
            // What the host resolves to may be one of the endpoints.
            let mut transports = port.endpoints.iter().map(|endpoint| &endpoint.transport).chain(&port.original);
            if transports.any(Transport::is_secured) {
                self.secured.entry(port.number).or_default().insert(Arc::clone(name));
            }
        }
    }

    fn add_name(&mut self, name: &Arc<str>, port: u16, target: Target) {
        self.names.entry(Arc::clone(name)).or_default().entry(port).or_default().push(target);
    }
}

/// Where endpoints of one address lead, by port: all of them by the port of the service, and some by their own.
fn group_targets(
    service: usize,
    port: &ServicePort,
    start: usize,
    group: &[Arc<Endpoint>],
    alike: &mut Alike,
) -> Vec<(u16, Target)> {
    let mut target = |level, start: usize, part: &[Arc<Endpoint>]| {
        let end = start + part.len();
        let alike = alike.endpoints(part);
        let security = Security::of(part.iter().map(|endpoint| &endpoint.transport));
        Target { level, service, port: port.number, part: Part::Endpoints { start, end }, alike, security }
    };
    let mut targets = vec![(port.number, target(Level::Endpoint, start, group))];
    let mut start = start;
    for equal in group.chunk_by(|one, other| one.port == other.port) {
        if let Some(own) = equal.first().map(|endpoint| endpoint.port).filter(|own| *own != port.number) {
            targets.push((own, target(Level::EndpointPort, start, equal)));
        }
        start += equal.len();
    }
    targets
}

/// The host of a service that is to be resolved although it has endpoints with other names, or none at all.
///
/// A name of the mesh is in no DNS. A service without DNS and with addresses is known by these.
pub(super) fn resolved_host(service: &Service) -> Option<&Arc<str>> {
    service.host.name()?;
    let name = &service.written;
    let resolved = match service.resolution {
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let itself =
                |endpoint: &Arc<Endpoint>| matches!(&endpoint.address, EndpointAddress::Name(own) if own == name);
            !service.ports.iter().any(|port| port.endpoints.iter().any(itself))
        }
        Resolution::None => service.addresses.is_empty(),
        Resolution::Static => false,
    };
    (resolved && !host::is_of_mesh(name)).then_some(name)
}

pub(super) fn is_single(cidr: &Cidr) -> bool {
    cidr.prefix() == if cidr.network().is_ipv4() { 32 } else { 128 }
}
