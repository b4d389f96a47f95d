//! Which route a captured connection takes, by its original destination.
//!
//! Names are resolved by us, now and then, and again when an address matches nothing, *before* it is called unknown: a
//! peer that restarted with a new address must not be sent plaintext. So an unknown address waits for a resolution that
//! began after it was dialled; and while a name of an mTLS route cannot be looked up, an unknown address may be that
//! peer's, and is refused.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_config::{Otherwise, Route, RouteMode, defaults};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::way::Way;

/// Two resolutions begin at least so far apart. An address that was called unknown is so for as long.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);
/// All names together may take this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// An address that a name had is kept for so long after it was last answered: some resolvers give a part of them at a time.
/// Nothing is sent there in plaintext because of it, and whoever has the address by then cannot be taken for the peer.
const KEEP: Duration = Duration::from_secs(90);
/// Unknown addresses that are remembered.
const MAX_UNKNOWN: usize = 4096;

/// What becomes of a destination.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It is reached like this.
    Way(Arc<Way>),
    /// No route names it, and that is not allowed.
    Refuse,
    /// No route names it, as far as names could be looked up, which is not far enough.
    Unresolved,
    /// Routes contradict each other.
    Conflict,
}

pub(crate) struct Routes {
    routes: Vec<(Route, Arc<Way>)>,
    /// What is not named by any route; `None` is refused.
    otherwise: Option<Arc<Way>>,
    resolved: ArcSwap<Names>,
    resolver: Mutex<Resolver>,
}

/// What is known of the names of the routes.
#[derive(Clone, Default)]
struct Names(HashMap<String, Name>);

#[derive(Clone, Default)]
struct Name {
    /// Each with the time when it was last answered.
    addresses: HashMap<IpAddr, Instant>,
    /// The last look-up came to nothing, not even to the answer that there is no such name.
    failed: bool,
}

#[derive(Default)]
struct Resolver {
    began: Option<Instant>,
    unknown: HashMap<IpAddr, Instant>,
}

impl Routes {
    pub(crate) fn new(routes: Vec<Route>, otherwise: Otherwise) -> Self {
        let way = |route: &Route| Way::new(route.mode.clone(), route.service.as_deref());
        let routes: Vec<_> =
            routes.into_iter().map(|route| (way(&route), route)).map(|(way, route)| (route, way)).collect();
        let otherwise = match otherwise {
            Otherwise::Plaintext => Some(Way::new(RouteMode::Plaintext, None)),
            Otherwise::Refuse => None,
        };
        // Before the first look-up nothing is known of any name.
        let hosts = routes.iter().flat_map(|(route, _)| route.hosts.iter().cloned());
        let names = hosts.map(|host| (host, Name { failed: true, ..Name::default() })).collect();
        Self { routes, otherwise, resolved: ArcSwap::from_pointee(Names(names)), resolver: Mutex::default() }
    }

    pub(crate) async fn find(&self, destination: SocketAddr) -> Verdict {
        if let Some(verdict) = self.matching(destination) {
            return verdict;
        }
        if self.has_hosts() {
            self.resolve_for(destination.ip().to_canonical()).await;
            if let Some(verdict) = self.matching(destination) {
                return verdict;
            }
        }
        match &self.otherwise {
            None => Verdict::Refuse,
            Some(_) if self.may_be_behind_a_name(destination.port()) => Verdict::Unresolved,
            Some(way) => Verdict::Way(Arc::clone(way)),
        }
    }

    /// Resolves for ever, so that addresses are known before they are needed.
    pub(crate) async fn keep_resolved(&self) {
        while self.has_hosts() {
            self.resolve(&mut *self.resolver.lock().await).await;
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
        for (route, way) in &self.routes {
            let named = route.cidrs.iter().any(|cidr| cidr.contains(address))
                || route.hosts.iter().any(|host| resolved.has(host, address));
            match found {
                _ if !covers(route, destination.port()) || !named => {}
                Some(other) if other.mode != way.mode => return Some(Verdict::Conflict),
                Some(_) => {}
                None => found = Some(way),
            }
        }
        found.map(|way| Verdict::Way(Arc::clone(way)))
    }

    /// Whether an mTLS route for this port has a name of which nobody can say what it stands for.
    fn may_be_behind_a_name(&self, port: u16) -> bool {
        let resolved = self.resolved.load();
        let failed = |host: &String| resolved.0.get(host).is_none_or(|name| name.failed);
        let mut routes = self.routes.iter().filter(|(route, _)| covers(route, port));
        routes.any(|(route, way)| matches!(way.mode, RouteMode::Mtls(_)) && route.hosts.iter().any(failed))
    }

    /// Waits for a resolution that began after this call, unless the address has just been found to be unknown.
    async fn resolve_for(&self, address: IpAddr) {
        let asked = Instant::now();
        let mut resolver = self.resolver.lock().await;
        if resolver.began.is_some_and(|began| began >= asked)
            || resolver.unknown.get(&address).is_some_and(|since| since.elapsed() < AT_MOST_EVERY)
        {
            return;
        }
        self.resolve(&mut resolver).await;
        if resolver.unknown.len() >= MAX_UNKNOWN {
            resolver.unknown.retain(|_, since| since.elapsed() < AT_MOST_EVERY);
        }
        if resolver.unknown.len() < MAX_UNKNOWN {
            let began = resolver.began.unwrap_or(asked);
            resolver.unknown.insert(address, began);
        }
    }

    /// Looks every name up, at once, but not sooner after the last time than is allowed.
    async fn resolve(&self, resolver: &mut Resolver) {
        if let Some(began) = resolver.began {
            sleep_until(began + AT_MOST_EVERY).await;
        }
        let began = Instant::now();
        resolver.began = Some(began);
        let mut lookups = JoinSet::new();
        let before = self.resolved.load_full();
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
            // A look-up that panicked leaves what was known, and is as good as failed.
            let Ok((host, answer)) = looked_up else { continue };
            after.0.entry(host.clone()).or_default().note(&host, answer, began);
        }
        self.resolved.store(Arc::new(after));
    }
}

fn covers(route: &Route, port: u16) -> bool {
    route.ports.is_empty() || route.ports.contains(&port)
}

impl Names {
    fn has(&self, host: &str, address: IpAddr) -> bool {
        self.0.get(host).is_some_and(|name| name.addresses.contains_key(&address))
    }
}

impl Name {
    fn note(&mut self, host: &str, answer: Result<Vec<IpAddr>, String>, now: Instant) {
        let known = !self.addresses.is_empty();
        match answer {
            Ok(addresses) => {
                if self.failed && known {
                    tracing::info!(host, "the name of a route resolves again");
                }
                self.failed = false;
                self.addresses.extend(addresses.into_iter().map(|address| (address, now)));
                self.addresses.retain(|_, last| now.duration_since(*last) < KEEP);
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

/// Whether the resolver says for certain that there is nothing: the two answers of getaddrinfo(3) that mean it, in the words
/// that the standard library passes on. Anything else is a failure.
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
        assert_eq!(two(&a, &b).find(here).await, Verdict::Conflict);
        assert_eq!(two(&a, &a).find(here).await, Verdict::Way(Way::new(a.clone(), None)));
        assert_eq!(two(&a, &b).find("10.1.2.3:81".parse().unwrap()).await, Verdict::Way(Way::new(a.clone(), None)));
        assert_eq!(two(&a, &b).find("11.0.0.1:80".parse().unwrap()).await, Verdict::Refuse);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_name_keeps_unknown_addresses_from_plaintext_on_its_ports_only() {
        let a = mtls("spiffe://cluster.local/ns/a/sa/a");
        let by_name =
            Route { hosts: vec!["cart".into()], cidrs: Vec::new(), ports: vec![80], mode: a.clone(), service: None };
        let routes = Routes::new(vec![by_name], Otherwise::Plaintext);
        let plaintext = || Verdict::Way(Way::new(RouteMode::Plaintext, None));
        let unnamed = |port: u16| {
            let destination = SocketAddr::new("192.0.2.1".parse().unwrap(), port);
            routes.matching(destination).unwrap_or_else(|| match &routes.otherwise {
                Some(_) if routes.may_be_behind_a_name(port) => Verdict::Unresolved,
                _ => plaintext(),
            })
        };
        assert_eq!(unnamed(80), Verdict::Unresolved, "nothing is known yet");
        assert_eq!(unnamed(81), plaintext());
        let answer = |answer: Result<&str, &str>, now: Instant| {
            let mut names = routes.resolved.load().as_ref().clone();
            let answer = answer.map(|text| text.split_whitespace().map(|ip| ip.parse().unwrap()).collect());
            names.0.get_mut("cart").unwrap().note("cart", answer.map_err(str::to_owned), now);
            routes.resolved.store(Arc::new(names));
        };
        let start = Instant::now();
        answer(Ok("192.0.2.9"), start);
        assert_eq!(unnamed(80), plaintext());
        let cart = || routes.matching("192.0.2.9:80".parse().unwrap());
        assert_eq!(cart(), Some(Verdict::Way(Way::new(a.clone(), None))));
        answer(Err("timed out"), start + Duration::from_secs(30));
        assert_eq!(unnamed(80), Verdict::Unresolved);
        // What a name had is kept through failures, and a while through answers without it.
        assert!(cart().is_some());
        answer(Ok("192.0.2.8"), start + KEEP - Duration::from_secs(1));
        assert!(cart().is_some());
        answer(Ok(""), start + KEEP);
        assert_eq!(cart(), None);
        assert!(routes.matching("192.0.2.8:80".parse().unwrap()).is_some());
    }

    /// An address that matched nothing is looked for in names that are resolved after it was dialled, and an
    /// earlier resolution does not count, however short a time ago it was.
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
        assert_eq!(find("192.0.2.1").await, Verdict::Refuse);
        let first = routes.resolver.lock().await.began.unwrap();
        let asked = Instant::now();
        assert_eq!(find("192.0.2.2").await, Verdict::Refuse);
        let second = routes.resolver.lock().await.began.unwrap();
        assert!(second >= asked && second >= first + AT_MOST_EVERY);
        let again = Instant::now();
        assert_eq!(find("192.0.2.2").await, Verdict::Refuse);
        assert!(again.elapsed() < AT_MOST_EVERY / 2, "what has just been unknown is");
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
