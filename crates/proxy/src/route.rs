//! Which route a captured connection takes, by its original destination.
//!
//! Names are resolved by us, now and then, and again when an address matches nothing, *before* it is called unknown: a
//! peer that restarted with a new address must not be sent plaintext.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use portcullis_settings::{Otherwise, Route, RouteMode, defaults};
use tokio::sync::Mutex;

use crate::way::Way;

/// Resolution on demand happens at most this often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// One name may take this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What becomes of a destination.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is reached like this.
    Way(Arc<Way>),
    /// No route names it, and that is not allowed.
    Refuse,
    /// Routes contradict each other.
    Conflict,
}

pub(crate) struct Routes {
    routes: Vec<(Route, Arc<Way>)>,
    /// What is not named by any route; `None` is refused.
    otherwise: Option<Arc<Way>>,
    /// Addresses of each route's hosts, in the order of the routes.
    resolved: ArcSwap<Vec<Vec<IpAddr>>>,
    last: Mutex<Option<Instant>>,
}

impl Routes {
    pub(crate) fn new(routes: Vec<Route>, otherwise: Otherwise) -> Self {
        let empty = routes.iter().map(|_| Vec::new()).collect();
        let way = |route: &Route| Way::new(route.mode.clone(), route.service.as_deref());
        let routes = routes.into_iter().map(|route| (way(&route), route)).map(|(way, route)| (route, way)).collect();
        let otherwise = match otherwise {
            Otherwise::Plaintext => Some(Way::new(RouteMode::Plaintext, None)),
            Otherwise::Refuse => None,
        };
        Self { routes, otherwise, resolved: ArcSwap::from_pointee(empty), last: Mutex::new(None) }
    }

    pub(crate) async fn find(&self, destination: SocketAddr) -> Verdict {
        if let Some(verdict) = self.matching(destination) {
            return verdict;
        }
        if self.has_hosts() {
            self.resolve(AT_MOST_EVERY).await;
            if let Some(verdict) = self.matching(destination) {
                return verdict;
            }
        }
        self.otherwise.as_ref().map_or(Verdict::Refuse, |way| Verdict::Way(Arc::clone(way)))
    }

    /// Resolves for ever, so that addresses are known before they are needed.
    pub(crate) async fn keep_resolved(&self) {
        while self.has_hosts() {
            self.resolve(AT_MOST_EVERY).await;
            tokio::time::sleep(defaults::RESOLVE).await;
        }
    }

    fn has_hosts(&self) -> bool {
        self.routes.iter().any(|(route, _)| !route.hosts.is_empty())
    }

    fn matching(&self, destination: SocketAddr) -> Option<Verdict> {
        let resolved = self.resolved.load();
        let address = destination.ip().to_canonical();
        let mut found: Option<&Arc<Way>> = None;
        for ((route, way), hosts) in self.routes.iter().zip(resolved.iter()) {
            let port = route.ports.is_empty() || route.ports.contains(&destination.port());
            let named = hosts.contains(&address) || route.cidrs.iter().any(|cidr| cidr.contains(address));
            match found {
                _ if !port || !named => {}
                Some(other) if other.mode != way.mode => return Some(Verdict::Conflict),
                Some(_) => {}
                None => found = Some(way),
            }
        }
        found.map(|way| Verdict::Way(Arc::clone(way)))
    }

    /// Resolves every host, unless that was done less than `every` ago. A name that does not resolve keeps the addresses
    /// that it had: they may be stale, but nothing is sent there in plaintext because of it.
    async fn resolve(&self, every: Duration) {
        let mut last = self.last.lock().await;
        if last.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let before = self.resolved.load_full();
        let mut after = Vec::with_capacity(self.routes.len());
        for ((route, _), known) in self.routes.iter().zip(before.iter()) {
            let mut addresses = Vec::new();
            let mut failed = false;
            for host in &route.hosts {
                match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host.as_str(), 0))).await {
                    Ok(Ok(found)) => addresses.extend(found.map(|address| address.ip().to_canonical())),
                    Ok(Err(_)) | Err(_) => failed = true,
                }
            }
            if failed {
                addresses.extend(known.iter().copied());
            }
            after.push(addresses);
        }
        self.resolved.store(Arc::new(after));
        *last = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use portcullis_settings::Cidr;

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
        assert_eq!(two(&a, &b).find(here).await, Verdict::Conflict);
        assert_eq!(two(&a, &a).find(here).await, Verdict::Way(Way::new(a.clone(), None)));
        assert_eq!(two(&a, &b).find("10.1.2.3:81".parse().unwrap()).await, Verdict::Way(Way::new(a.clone(), None)));
        assert_eq!(two(&a, &b).find("11.0.0.1:80".parse().unwrap()).await, Verdict::Refuse);
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
        let verdict = routes.find("127.0.0.1:80".parse().unwrap()).await;
        assert_eq!(verdict, Verdict::Way(Way::new(a, None)));
        let other = routes.find("127.0.0.1:81".parse().unwrap()).await;
        assert_eq!(other, Verdict::Way(Way::new(RouteMode::Plaintext, None)));
    }
}
