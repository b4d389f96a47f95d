//! The services of one client, and the look-ups in them.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::directory::build::Builder;
use crate::directory::client::Client;
use crate::directory::host;
use crate::directory::index::{Index, Level, Target};
use crate::directory::lookup::{Found, Lookup};
use crate::directory::ports::EVERY_PORT;
use crate::directory::service::Service;
use crate::directory::transport::{TlsOrigination, Transport};
use crate::set::PolicySet;
use crate::workload::MeshSettings;

/// All services as one client sees them.
///
/// It is the same in whatever order the documents were read. Two are equal if all services are, with all that decides how
/// endpoints are reached.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    namespace: Arc<str>,
    services: Vec<Arc<Service>>,
    names: BTreeSet<Arc<str>>,
    originations: Vec<Arc<TlsOrigination>>,
    index: Index,
}

/// The rest follows from these.
impl PartialEq for Directory {
    fn eq(&self, other: &Self) -> bool {
        self.namespace == other.namespace && self.services == other.services
    }
}

impl Eq for Directory {}

impl Directory {
    /// What the client sees of a set that has no errors.
    #[must_use]
    pub fn resolve(set: &PolicySet, mesh: &MeshSettings, client: &Client<'_>) -> Self {
        let mut entries: Vec<_> = set.service_entries().iter().collect();
        entries.retain(|entry| entry.export_to.includes(client.namespace));
        if entries.is_empty() {
            return Self { namespace: client.namespace.into(), ..Self::default() };
        }
        entries.sort_by(|one, other| {
            let foreign = |namespace: &str| namespace != client.namespace;
            foreign(&one.meta.namespace).cmp(&foreign(&other.meta.namespace)).then_with(|| one.meta.by_age(&other.meta))
        });
        let mut builder = Builder::new(set, mesh, client);
        let services: Vec<_> = entries.into_iter().flat_map(|entry| builder.services(entry)).collect();
        let index = Index::new(&services);
        let names = index.names.keys().cloned().collect();
        let originations = originations(&services);
        Self { namespace: client.namespace.into(), services, names, originations, index }
    }

    /// Whether there is no service at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The services: those of the client's namespace first, then by age.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The names to be resolved: of endpoints, and of hosts that have none or stand for them.
    #[must_use]
    pub const fn names(&self) -> &BTreeSet<Arc<str>> {
        &self.names
    }

    /// The TLS originations that endpoints use, each once.
    #[must_use]
    pub fn originations(&self) -> &[Arc<TlsOrigination>] {
        &self.originations
    }

    /// The files with certificates and keys that they name.
    #[must_use]
    pub fn tls_files(&self) -> BTreeSet<Arc<str>> {
        self.originations.iter().flat_map(|origination| origination.files()).cloned().collect()
    }

    /// Where a captured connection goes: its original destination, and the names that resolve to that address now.
    ///
    /// The service's own address goes before that of an endpoint, the service's port before the endpoint's, and both before a
    /// range of addresses.
    #[must_use]
    pub fn find(&self, destination: SocketAddr, names: &[Arc<str>]) -> Lookup<'_> {
        let (address, port) = (destination.ip().to_canonical(), destination.port());
        let claims = [port, EVERY_PORT].into_iter().flat_map(|number| {
            let by_name = names.iter().filter_map(move |name| self.index.names.get(name)?.get(&number));
            self.index.addresses.get(&(address, number)).into_iter().chain(by_name).flatten()
        });
        match decide(claims, &self.services, None) {
            Lookup::Unknown => self.find_range(address, port),
            found => found,
        }
    }

    fn find_range(&self, address: IpAddr, port: u16) -> Lookup<'_> {
        let mut claims = Vec::new();
        let mut prefix = None;
        // The smallest ranges come first, and larger ones count only if none of those has the port.
        for range in self.index.ranges.iter().filter(|range| range.cidr.contains(address)) {
            if prefix.is_some_and(|prefix| prefix != range.cidr.prefix()) {
                break;
            }
            let service = self.services.get(range.service);
            let whole = |service| self.index.whole(range.service, service, port, None, Level::Range);
            if let Some(target) = service.and_then(|service| whole(service)) {
                prefix = Some(range.cidr.prefix());
                claims.push(target);
            }
        }
        decide(claims.iter(), &self.services, None)
    }

    /// Whether a service that gets something else than plaintext could have this port at an unknown address: one of its names
    /// does not resolve at the moment, which `failed` tells.
    #[must_use]
    pub fn may_own(&self, port: u16, failed: &dyn Fn(&str) -> bool) -> bool {
        let mut names = [port, EVERY_PORT].into_iter().filter_map(|port| self.secured_names(port)).flatten();
        names.any(|name| failed(name))
    }

    /// The names behind which something else than plaintext is expected on a port. For callers that know the names that fail,
    /// which are few.
    #[must_use]
    pub fn secured_names(&self, port: u16) -> Option<&BTreeSet<Arc<str>>> {
        self.index.secured.get(&port)
    }

    /// Where a configured upstream or a backend of a gateway is: a full name, `NAME.NAMESPACE`, `NAME` in the client's
    /// namespace, the name of an endpoint, or an address. Services of several of these that are not reached alike are a conflict,
    /// unless one is of the client's own namespace.
    #[must_use]
    pub fn by_host(&self, host: &str, port: u16, subset: Option<&str>) -> Lookup<'_> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return match subset {
                None => self.find(SocketAddr::new(address, port), &[]),
                Some(_) => Lookup::NoSubset,
            };
        }
        let host = host::canonical(host);
        let full = host::complete(&host, &self.namespace);
        let in_namespace = host::complete_in_namespace(&host);
        let hosts = &self.index.hosts;
        let mut exact: Vec<&String> = [Some(&host), Some(&full), in_namespace.as_ref()].into_iter().flatten().collect();
        exact.dedup();
        let services: Vec<usize> = exact.into_iter().filter_map(|name| hosts.exact(name)).flatten().copied().collect();
        if !services.is_empty() {
            return self.of_services(&services, port, subset);
        }
        if let Some(ports) = self.index.names.get(&*host) {
            let claims = [port, EVERY_PORT].into_iter().filter_map(|number| ports.get(&number)).flatten();
            return match (decide(claims, &self.services, None), subset) {
                (Lookup::Unknown, _) => Lookup::NoPort,
                (_, Some(_)) => Lookup::NoSubset,
                (found, None) => found,
            };
        }
        hosts.wildcard(&host).map_or(Lookup::Unknown, |services| self.of_services(services, port, subset))
    }

    fn of_services(&self, numbers: &[usize], port: u16, subset: Option<&str>) -> Lookup<'_> {
        let services = || numbers.iter().filter_map(|number| Some((*number, self.services.get(*number)?)));
        let with_port: Vec<_> = services().filter(|(_, service)| service.port(port, None).is_some()).collect();
        if with_port.is_empty() {
            return Lookup::NoPort;
        }
        // An entry of the client's own namespace goes before others.
        let is_own = |service: &Service| *service.entry.namespace == *self.namespace;
        let own = with_port.iter().any(|(_, service)| is_own(service));
        let visible = with_port.into_iter().filter(|(_, service)| !own || is_own(service));
        let claims: Vec<Target> = visible
            .filter_map(|(number, service)| self.index.whole(number, service, port, subset, Level::Virtual))
            .collect();
        if claims.is_empty() { Lookup::NoSubset } else { decide(claims.iter(), &self.services, subset) }
    }
}

/// The most direct claim of a destination; of those that are as direct, the first service. A conflict if one that is as direct leads
/// elsewhere, or if the result would be plaintext where a less direct claim is secured.
fn decide<'t, 'd>(
    claims: impl Iterator<Item = &'t Target> + Clone,
    services: &'d [Arc<Service>],
    subset: Option<&str>,
) -> Lookup<'d> {
    let Some(best) = claims.clone().min_by_key(|target| (target.rank(), target.service)) else {
        return Lookup::Unknown;
    };
    let is_rival = |target: &&Target| {
        target.rank() == best.rank() && target.alike != best.alike || best.takes_security_from(target)
    };
    let mut rivals = claims.filter(is_rival).peekable();
    if rivals.peek().is_some() {
        let disagreeing = rivals.chain([best]).filter_map(|target| services.get(target.service));
        let labels: BTreeSet<String> = disagreeing.map(|service| service.entry.label()).collect();
        return Lookup::Conflict(labels.into_iter().collect());
    }
    let found = || {
        let service = services.get(best.service)?;
        let port = service.port(best.port, subset)?;
        Some(Found { service, port, choice: best.choice(port)? })
    };
    // A target is always one of a service.
    found().map_or(Lookup::Unknown, Lookup::Found)
}

fn originations(services: &[Arc<Service>]) -> Vec<Arc<TlsOrigination>> {
    let mut found: Vec<Arc<TlsOrigination>> = Vec::new();
    for port in services.iter().flat_map(|service| service.ports.iter().chain(service.subsets.values().flatten())) {
        // All endpoints of a port share it.
        let transports = port.original.iter().chain(port.endpoints.first().map(|endpoint| &endpoint.transport));
        for transport in transports {
            if let Transport::Originate(origination) = transport
                && !found.contains(origination)
            {
                found.push(Arc::clone(origination));
            }
        }
    }
    found
}
