//! Which route a captured connection takes, by its original destination.
//!
//! Host names in routes are resolved periodically, and again when an address matches no route, *before* the address counts
//! as unknown: a peer that restarted with a new address must not be sent plaintext. So an unknown address waits for a
//! resolution that began after it was dialled. While a host of an mTLS route does not resolve, an unknown address may
//! belong to that host, and is refused.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::{Otherwise, Route, RouteMode, defaults};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::resolved_route::ResolvedRoute;

/// The shortest time between the starts of two resolutions. An address that was found unknown stays unknown for as long.
const MIN_RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// The deadline for all lookups of one resolution together.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an address stays with a host after the last answer that contained it: some resolvers return a subset each
/// time. This never sends plaintext, and another workload that gets the address meanwhile fails the identity check.
const ADDRESS_TTL: Duration = Duration::from_secs(90);
/// How many unknown addresses are remembered.
const MAX_UNKNOWN: usize = 4096;

/// The result of looking up a destination.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum RouteLookup {
    /// The route to take.
    Found(Arc<ResolvedRoute>),
    /// No route matches, and `outbound.otherwise` is `refuse`.
    NoRoute,
    /// No route matches, but a host of an mTLS route does not resolve, so the address may belong to it.
    Unresolved,
    /// Two matching routes disagree.
    Conflict,
}

/// All routes, in the order of the configuration.
pub(crate) struct Routes {
    routes: Vec<ConfiguredRoute>,
    /// What applies to a destination without a route; `None` refuses it.
    otherwise: Option<Arc<ResolvedRoute>>,
    hosts: ArcSwap<ResolvedHosts>,
    resolver: Mutex<Resolver>,
}

/// One route of the configuration.
struct ConfiguredRoute {
    matcher: Route,
    target: Arc<ResolvedRoute>,
}

/// The addresses of the hosts that routes name.
#[derive(Clone, Default)]
struct ResolvedHosts(HashMap<String, HostAddresses>);

#[derive(Clone, Default)]
struct HostAddresses {
    /// Each address with the time of the last answer that contained it.
    addresses: HashMap<IpAddr, Instant>,
    /// The last lookup failed: it returned neither addresses nor "no such name".
    failed: bool,
}

#[derive(Default)]
struct Resolver {
    began: Option<Instant>,
    unknown: HashMap<IpAddr, Instant>,
}

impl ConfiguredRoute {
    fn new(matcher: Route) -> Self {
        let target = ResolvedRoute::new(matcher.mode.clone(), matcher.service.as_deref());
        Self { matcher, target }
    }

    fn covers_port(&self, port: u16) -> bool {
        self.matcher.ports.is_empty() || self.matcher.ports.contains(&port)
    }

    fn covers_address(&self, address: IpAddr, hosts: &ResolvedHosts) -> bool {
        self.matcher.cidrs.iter().any(|cidr| cidr.contains(address))
            || self.matcher.hosts.iter().any(|host| hosts.contains(host, address))
    }
}

impl Routes {
    pub(crate) fn new(routes: Vec<Route>, otherwise: Otherwise) -> Self {
        let routes: Vec<_> = routes.into_iter().map(ConfiguredRoute::new).collect();
        let otherwise = match otherwise {
            Otherwise::Plaintext => Some(ResolvedRoute::new(RouteMode::Plaintext, None)),
            Otherwise::Refuse => None,
        };
        // Until its first lookup a host counts as failed.
        let names = routes.iter().flat_map(|route| route.matcher.hosts.iter().cloned());
        let hosts = names.map(|host| (host, HostAddresses { failed: true, ..HostAddresses::default() })).collect();
        Self { routes, otherwise, hosts: ArcSwap::from_pointee(ResolvedHosts(hosts)), resolver: Mutex::default() }
    }

    pub(crate) async fn find(&self, destination: SocketAddr) -> RouteLookup {
        if let Some(found) = self.matching(destination) {
            return found;
        }
        if self.has_hosts() {
            self.resolve_for(destination.ip().to_canonical()).await;
            if let Some(found) = self.matching(destination) {
                return found;
            }
        }
        match &self.otherwise {
            None => RouteLookup::NoRoute,
            Some(_) if self.may_belong_to_failed_host(destination.port()) => RouteLookup::Unresolved,
            Some(route) => RouteLookup::Found(Arc::clone(route)),
        }
    }

    /// Resolves all hosts periodically, so that addresses are known before they are needed. Returns at once without hosts,
    /// otherwise never.
    pub(crate) async fn refresh_hosts(&self) {
        while self.has_hosts() {
            self.resolve(&mut *self.resolver.lock().await).await;
            tokio::time::sleep(defaults::RESOLVE).await;
        }
    }

    fn has_hosts(&self) -> bool {
        self.routes.iter().any(|route| !route.matcher.hosts.is_empty())
    }

    fn matching(&self, destination: SocketAddr) -> Option<RouteLookup> {
        let hosts = self.hosts.load();
        let address = destination.ip().to_canonical();
        let mut found: Option<&Arc<ResolvedRoute>> = None;
        for route in &self.routes {
            match found {
                _ if !route.covers_port(destination.port()) || !route.covers_address(address, &hosts) => {}
                Some(other) if other.mode != route.target.mode => return Some(RouteLookup::Conflict),
                Some(_) => {}
                None => found = Some(&route.target),
            }
        }
        found.map(|route| RouteLookup::Found(Arc::clone(route)))
    }

    /// Whether an mTLS route for this port names a host whose last lookup failed.
    fn may_belong_to_failed_host(&self, port: u16) -> bool {
        let hosts = self.hosts.load();
        let failed = |host: &String| hosts.0.get(host).is_none_or(|host| host.failed);
        let mut routes = self.routes.iter().filter(|route| route.covers_port(port));
        routes.any(|route| matches!(route.target.mode, RouteMode::Mtls(_)) && route.matcher.hosts.iter().any(failed))
    }

    /// Waits for a resolution that began after this call, unless the address was found unknown a moment ago.
    async fn resolve_for(&self, address: IpAddr) {
        let asked = Instant::now();
        let mut resolver = self.resolver.lock().await;
        if resolver.began.is_some_and(|began| began >= asked)
            || resolver.unknown.get(&address).is_some_and(|since| since.elapsed() < MIN_RESOLVE_INTERVAL)
        {
            return;
        }
        self.resolve(&mut resolver).await;
        if resolver.unknown.len() >= MAX_UNKNOWN {
            resolver.unknown.retain(|_, since| since.elapsed() < MIN_RESOLVE_INTERVAL);
        }
        if resolver.unknown.len() < MAX_UNKNOWN {
            let began = resolver.began.unwrap_or(asked);
            resolver.unknown.insert(address, began);
        }
    }

    /// Looks up all hosts in parallel. Waits until [`MIN_RESOLVE_INTERVAL`] has passed since the previous resolution.
    async fn resolve(&self, resolver: &mut Resolver) {
        if let Some(began) = resolver.began {
            sleep_until(began + MIN_RESOLVE_INTERVAL).await;
        }
        let began = Instant::now();
        resolver.began = Some(began);
        let mut lookups = JoinSet::new();
        let before = self.hosts.load_full();
        for host in before.0.keys().cloned() {
            lookups.spawn(async move {
                let lookup = async {
                    let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
                    Ok(found.map(|address| address.ip().to_canonical()).collect::<Vec<_>>())
                };
                let answer = match timeout_at(began + RESOLVE_TIMEOUT, lookup).await {
                    Ok(Ok(found)) => Ok(found),
                    Ok(Err(error)) if is_no_such_name(&error) => Ok(Vec::new()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_elapsed) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
                };
                (host, answer)
            });
        }
        let mut after = before.as_ref().clone();
        while let Some(looked_up) = lookups.join_next().await {
            // A lookup that panicked changes nothing.
            let Ok((host, answer)) = looked_up else { continue };
            after.0.entry(host.clone()).or_default().update(&host, answer, began);
        }
        self.hosts.store(Arc::new(after));
    }
}

impl ResolvedHosts {
    fn contains(&self, host: &str, address: IpAddr) -> bool {
        self.0.get(host).is_some_and(|host| host.addresses.contains_key(&address))
    }
}

impl HostAddresses {
    fn update(&mut self, host: &str, answer: Result<Vec<IpAddr>, String>, now: Instant) {
        let known = !self.addresses.is_empty();
        match answer {
            Ok(addresses) => {
                if self.failed && known {
                    tracing::info!(host, "the name of a route resolves again");
                }
                self.failed = false;
                self.addresses.extend(addresses.into_iter().map(|address| (address, now)));
                self.addresses.retain(|_, last| now.duration_since(*last) < ADDRESS_TTL);
            }
            Err(error) => {
                if !self.failed || !known {
                    tracing::warn!(
                        host,
                        error,
                        "the name of a route cannot be looked up; addresses that no route names are refused on its ports"
                    );
                }
                self.failed = true;
            }
        }
    }
}

/// Whether the resolver answered that the name does not exist. getaddrinfo(3) has two such errors, and the standard library
/// passes on only their text. Every other error is a failed lookup.
fn is_no_such_name(error: &std::io::Error) -> bool {
    let text = error.to_string();
    ["Name or service not known", "No address associated with hostname"].iter().any(|known| text.ends_with(known))
}

#[cfg(test)]
mod tests {
    use portcullis_config::Cidr;

    use super::*;

    fn route(cidr: &str, ports: &[u16], mode: RouteMode) -> Route {
        Route { hosts: Vec::new(), cidrs: vec![Cidr::parse(cidr).unwrap()], ports: ports.to_vec(), mode, service: None }
    }

    fn mtls(id: &str) -> RouteMode {
        let id = portcullis_identity::SpiffeId::parse(id).unwrap();
        RouteMode::Mtls(portcullis_identity::ExpectedIds::new([id]).unwrap())
    }

    #[tokio::test]
    async fn contradicting_routes_are_refused_and_agreeing_ones_are_not() {
        let a = mtls("spiffe://cluster.local/ns/a/sa/a");
        let b = mtls("spiffe://cluster.local/ns/b/sa/b");
        let two = |first: &RouteMode, second: &RouteMode| {
            let list = vec![route("10.0.0.0/8", &[], first.clone()), route("10.1.0.0/16", &[80], second.clone())];
            Routes::new(list, Otherwise::Refuse)
        };
        let here = "10.1.2.3:80".parse().unwrap();
        assert_eq!(two(&a, &b).find(here).await, RouteLookup::Conflict);
        assert_eq!(two(&a, &a).find(here).await, RouteLookup::Found(ResolvedRoute::new(a.clone(), None)));
        assert_eq!(
            two(&a, &b).find("10.1.2.3:81".parse().unwrap()).await,
            RouteLookup::Found(ResolvedRoute::new(a.clone(), None))
        );
        assert_eq!(two(&a, &b).find("11.0.0.1:80".parse().unwrap()).await, RouteLookup::NoRoute);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_name_keeps_unknown_addresses_from_plaintext_on_its_ports_only() {
        let a = mtls("spiffe://cluster.local/ns/a/sa/a");
        let by_name =
            Route { hosts: vec!["cart".into()], cidrs: Vec::new(), ports: vec![80], mode: a.clone(), service: None };
        let routes = Routes::new(vec![by_name], Otherwise::Plaintext);
        let plaintext = || RouteLookup::Found(ResolvedRoute::new(RouteMode::Plaintext, None));
        let unnamed = |port: u16| {
            let destination = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            routes.matching(destination).unwrap_or_else(|| match &routes.otherwise {
                Some(_) if routes.may_belong_to_failed_host(port) => RouteLookup::Unresolved,
                _ => plaintext(),
            })
        };
        assert_eq!(unnamed(80), RouteLookup::Unresolved, "no lookup has succeeded yet");
        assert_eq!(unnamed(81), plaintext());
        let answer = |answer: Result<&str, &str>, now: Instant| {
            let mut hosts = routes.hosts.load().as_ref().clone();
            let answer = answer.map(|text| text.split_whitespace().map(|ip| ip.parse().unwrap()).collect());
            hosts.0.get_mut("cart").unwrap().update("cart", answer.map_err(str::to_owned), now);
            routes.hosts.store(Arc::new(hosts));
        };
        let start = Instant::now();
        answer(Ok("192.0.2.9"), start);
        assert_eq!(unnamed(80), plaintext());
        let cart = || routes.matching("192.0.2.9:80".parse().unwrap());
        assert_eq!(cart(), Some(RouteLookup::Found(ResolvedRoute::new(a.clone(), None))));
        answer(Err("timed out"), start + Duration::from_secs(30));
        assert_eq!(unnamed(80), RouteLookup::Unresolved);
        // Addresses survive failed lookups, and for a while answers without them.
        assert!(cart().is_some());
        answer(Ok("192.0.2.8"), start + ADDRESS_TTL - Duration::from_secs(1));
        assert!(cart().is_some());
        answer(Ok(""), start + ADDRESS_TTL);
        assert_eq!(cart(), None);
        assert!(routes.matching("192.0.2.8:80".parse().unwrap()).is_some());
    }

    /// An address without a match is looked up in a resolution that began after it was dialled. An earlier resolution does
    /// not count, however recent it was.
    #[tokio::test]
    async fn an_unknown_address_waits_for_a_resolution_of_its_own() {
        let by_name = Route {
            hosts: vec!["localhost".into()],
            cidrs: Vec::new(),
            ports: Vec::new(),
            mode: RouteMode::Plaintext,
            service: None,
        };
        let routes = Routes::new(vec![by_name], Otherwise::Refuse);
        let find = |ip: &str| routes.find(SocketAddr::new(ip.parse().unwrap(), 80));
        assert_eq!(find("192.0.2.1").await, RouteLookup::NoRoute);
        let first = routes.resolver.lock().await.began.unwrap();
        let asked = Instant::now();
        assert_eq!(find("192.0.2.2").await, RouteLookup::NoRoute);
        let second = routes.resolver.lock().await.began.unwrap();
        assert!(second >= asked && second >= first + MIN_RESOLVE_INTERVAL);
        let again = Instant::now();
        assert_eq!(find("192.0.2.2").await, RouteLookup::NoRoute);
        assert!(
            again.elapsed() < MIN_RESOLVE_INTERVAL / 2,
            "an address found unknown a moment ago is not looked up again"
        );
    }

    #[tokio::test]
    async fn a_host_is_resolved_before_its_address_is_called_unknown() {
        let a = mtls("spiffe://cluster.local/ns/a/sa/a");
        let by_name = Route {
            hosts: vec!["localhost".into()],
            cidrs: Vec::new(),
            ports: vec![80],
            mode: a.clone(),
            service: None,
        };
        let routes = Routes::new(vec![by_name], Otherwise::Plaintext);
        let found = routes.find("127.0.0.1:80".parse().unwrap()).await;
        assert_eq!(found, RouteLookup::Found(ResolvedRoute::new(a, None)));
        let other = routes.find("127.0.0.1:81".parse().unwrap()).await;
        assert_eq!(other, RouteLookup::Found(ResolvedRoute::new(RouteMode::Plaintext, None)));
    }
}
