//! Which route a captured connection takes, by its original destination.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_config::{Otherwise, Route, RouteMode};
use portcullis_dns::Table;

use crate::resolved_route::ResolvedRoute;

/// The result of looking up a destination that a route names.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum RouteLookup {
    /// The route to take.
    Found(Arc<ResolvedRoute>),
    /// Two matching routes disagree.
    Conflict,
}

/// All routes, in the order of the configuration.
pub(crate) struct Routes {
    routes: Vec<ConfiguredRoute>,
    /// What applies to a destination that nothing names; `None` refuses it.
    otherwise: Option<Arc<ResolvedRoute>>,
}

/// One route of the configuration.
struct ConfiguredRoute {
    matcher: Route,
    target: Arc<ResolvedRoute>,
}

impl ConfiguredRoute {
    fn new(matcher: Route) -> Self {
        let target = ResolvedRoute::new(matcher.mode.clone(), matcher.service.as_deref());
        Self { matcher, target }
    }

    fn covers_port(&self, port: u16) -> bool {
        self.matcher.ports.is_empty() || self.matcher.ports.contains(&port)
    }

    fn names_host(&self, name: &str) -> bool {
        self.matcher.hosts.iter().any(|host| host.eq_ignore_ascii_case(name))
    }

    fn covers_address(&self, address: IpAddr, names: &Table) -> bool {
        self.matcher.cidrs.iter().any(|cidr| cidr.contains(address))
            || names.names_of(address).iter().any(|name| self.names_host(name))
    }
}

impl Routes {
    pub(crate) fn new(routes: Vec<Route>, otherwise: Otherwise) -> Self {
        let otherwise = match otherwise {
            Otherwise::Plaintext => Some(ResolvedRoute::new(RouteMode::Plaintext, None)),
            Otherwise::Refuse => None,
        };
        Self { routes: routes.into_iter().map(ConfiguredRoute::new).collect(), otherwise }
    }

    /// What applies to a destination that nothing names; `None` refuses it.
    pub(crate) const fn otherwise(&self) -> Option<&Arc<ResolvedRoute>> {
        self.otherwise.as_ref()
    }

    /// The route for an original destination, with the addresses that names have now.
    pub(crate) fn matching(&self, destination: SocketAddr, names: &Table) -> Option<RouteLookup> {
        let address = destination.ip().to_canonical();
        let mut found: Option<&Arc<ResolvedRoute>> = None;
        for route in &self.routes {
            match found {
                _ if !route.covers_port(destination.port()) || !route.covers_address(address, names) => {}
                Some(other) if other.mode != route.target.mode => return Some(RouteLookup::Conflict),
                Some(_) => {}
                None => found = Some(&route.target),
            }
        }
        found.map(|route| RouteLookup::Found(Arc::clone(route)))
    }

    /// Whether an mTLS or HBONE route for this port names a host whose last lookup failed.
    pub(crate) fn may_belong_to_failed_host(&self, port: u16, failed: &dyn Fn(&str) -> bool) -> bool {
        let mut routes = self.routes.iter().filter(|route| route.covers_port(port));
        routes.any(|route| {
            matches!(route.target.mode, RouteMode::Mtls(_) | RouteMode::Hbone(_))
                && route.matcher.hosts.iter().any(|host| failed(host))
        })
    }
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

    #[test]
    fn contradicting_routes_are_refused_and_agreeing_ones_are_not() {
        let a = mtls("spiffe://cluster.local/ns/a/sa/a");
        let b = mtls("spiffe://cluster.local/ns/b/sa/b");
        let two = |first: &RouteMode, second: &RouteMode| {
            let list = vec![route("10.0.0.0/8", &[], first.clone()), route("10.1.0.0/16", &[80], second.clone())];
            Routes::new(list, Otherwise::Refuse)
        };
        let names = Table::default();
        let find = |routes: Routes, address: &str| routes.matching(address.parse().unwrap(), &names);
        let found = Some(RouteLookup::Found(ResolvedRoute::new(a.clone(), None)));
        assert_eq!(find(two(&a, &b), "10.1.2.3:80"), Some(RouteLookup::Conflict));
        assert_eq!(find(two(&a, &a), "10.1.2.3:80"), found);
        assert_eq!(find(two(&a, &b), "10.1.2.3:81"), found);
        assert_eq!(find(two(&a, &b), "11.0.0.1:80"), None);
    }
}
