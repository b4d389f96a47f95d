//! Observations of many sidecars, merged into edges.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use portcullis_api::{Client, Direction, Observation, Observations, ProxyInfo, Timestamp, Transport};
use portcullis_identity::SpiffeId;
use portcullis_mesh::{AdminAddress, ContainerNames, Target};
use serde::Serialize;

/// What one sidecar observed.
pub(super) struct Side {
    pub(super) target: Target,
    pub(super) seen: Observations,
}

/// Who talks to whom.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Edge {
    pub(super) src: String,
    pub(super) dst: String,
    pub(super) src_namespace: String,
    pub(super) dst_namespace: String,
    pub(super) client_id: Option<String>,
    pub(super) server_id: Option<String>,
    /// Connections over mutual TLS.
    pub(super) mutual_tls: u64,
    /// Connections over anything else.
    pub(super) other: u64,
    /// Connections that were refused.
    pub(super) refused: u64,
    /// What the others were carried by.
    pub(super) transport: Transport,
    pub(super) last_seen: Timestamp,
}

#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct End {
    namespace: String,
    name: String,
}

/// What one side counted of an edge.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    mutual_tls: u64,
    other: u64,
    refused: u64,
}

#[derive(Default)]
struct Merged {
    client_id: Option<String>,
    server_id: Option<String>,
    /// Of each sidecar by its place, so that replicas add up and the two sides of a connection do not.
    at_client: HashMap<usize, Count>,
    at_server: HashMap<usize, Count>,
    transport: Transport,
    last_seen: Timestamp,
}

/// The edges, in the order of their names.
pub(super) fn edges(sides: &[Side], containers: &ContainerNames) -> Vec<Edge> {
    let names = Names::new(sides, containers);
    let mut merged: BTreeMap<(End, End), Merged> = BTreeMap::new();
    for (index, Side { seen, .. }) in sides.iter().enumerate() {
        let own = End { namespace: seen.proxy.namespace.clone(), name: seen.proxy.name.clone() };
        let own_id = Some(seen.proxy.identity.clone()).filter(|id| !id.is_empty());
        for one in &seen.observations {
            let other = names.end(&one.peer, one.direction);
            let (ends, ids) = match one.direction {
                Direction::Inbound => ((other, own.clone()), (one.peer.identity.clone(), own_id.clone())),
                Direction::Outbound => ((own.clone(), other), (own_id.clone(), one.peer.identity.clone())),
            };
            merged.entry(ends).or_default().add(index, one, ids);
        }
    }
    merged.into_iter().map(|((src, dst), merged)| merged.edge(src, dst)).collect()
}

impl Merged {
    fn add(&mut self, index: usize, one: &Observation, (client, server): (Option<String>, Option<String>)) {
        let is_mtls = one.transport == Transport::Mtls;
        let counts = match one.direction {
            Direction::Inbound => &mut self.at_server,
            Direction::Outbound => &mut self.at_client,
        };
        let count = counts.entry(index).or_default();
        let allowed = if is_mtls { &mut count.mutual_tls } else { &mut count.other };
        *allowed = allowed.saturating_add(one.allowed);
        count.refused = count.refused.saturating_add(one.refused);
        if !is_mtls && (one.allowed > 0 || self.transport == Transport::Unknown) {
            self.transport = one.transport;
        }
        // An identity is verified over mutual TLS only; that of plaintext is nobody's.
        if is_mtls {
            self.client_id = client.or_else(|| self.client_id.take());
            self.server_id = server.or_else(|| self.server_id.take());
        }
        self.last_seen = self.last_seen.max(one.last_seen);
    }

    fn edge(self, src: End, dst: End) -> Edge {
        let sum = |counts: &HashMap<usize, Count>, part: fn(&Count) -> u64| {
            counts.values().map(part).fold(0_u64, u64::saturating_add)
        };
        // Both sides count the same connections, but one may have counted for longer.
        let most = |part: fn(&Count) -> u64| sum(&self.at_client, part).max(sum(&self.at_server, part));
        Edge {
            src: src.name,
            dst: dst.name,
            src_namespace: src.namespace,
            dst_namespace: dst.namespace,
            mutual_tls: most(|count| count.mutual_tls),
            other: most(|count| count.other),
            refused: most(|count| count.refused),
            client_id: self.client_id,
            server_id: self.server_id,
            transport: self.transport,
            last_seen: self.last_seen,
        }
    }
}

/// What peers are called.
struct Names<'a> {
    by_identity: HashMap<&'a str, &'a ProxyInfo>,
    /// Addresses of workloads whose sidecars answer.
    by_address: HashMap<IpAddr, &'a ProxyInfo>,
    by_service: HashMap<(&'a str, &'a str), &'a ProxyInfo>,
    containers: &'a ContainerNames,
}

impl<'a> Names<'a> {
    fn new(sides: &'a [Side], containers: &'a ContainerNames) -> Self {
        let mut names =
            Self { by_identity: HashMap::new(), by_address: HashMap::new(), by_service: HashMap::new(), containers };
        for Side { target, seen } in sides {
            names.by_identity.insert(&seen.proxy.identity, &seen.proxy);
            names.by_service.insert((&seen.proxy.service, &seen.proxy.namespace), &seen.proxy);
            let admin = match &target.address {
                AdminAddress::Tcp(authority) => authority.parse().ok().map(|address: SocketAddr| address.ip()),
                AdminAddress::Unix(_) => None,
            };
            // Loopback is everybody's.
            let dialled = seen.observations.iter().filter_map(|one| one.peer.dialled);
            for address in dialled.chain(admin).map(|address| address.to_canonical()) {
                if !address.is_loopback() && !address.is_unspecified() {
                    names.by_address.insert(address, &seen.proxy);
                }
            }
        }
        names
    }

    /// By what is known best: identity, service, address, name.
    fn end(&self, peer: &Client, direction: Direction) -> End {
        if let Some(identity) = &peer.identity {
            return self
                .by_identity
                .get(identity.as_str())
                .map_or_else(|| of_identity(identity), |proxy| of_proxy(proxy));
        }
        let address = peer.address.map(|address| address.to_canonical());
        if let Some(proxy) = address.and_then(|address| self.by_address.get(&address)) {
            return of_proxy(proxy);
        }
        if let Some(service) = peer.service.as_deref().filter(|_| direction == Direction::Outbound) {
            let end = of_host(service);
            let known = self.by_service.get(&(end.name.as_str(), end.namespace.as_str()));
            return known.map(|proxy| of_proxy(proxy)).unwrap_or(end);
        }
        if let Some(container) = address.and_then(|address| self.containers.get(address)) {
            return End { namespace: String::new(), name: container.to_owned() };
        }
        match (&peer.name, address) {
            (Some(name), Some(address)) => End { namespace: String::new(), name: format!("{name} ({address})") },
            (Some(name), None) => End { namespace: String::new(), name: name.clone() },
            (None, Some(address)) => End { namespace: String::new(), name: address.to_string() },
            (None, None) => End { namespace: String::new(), name: "unknown".to_owned() },
        }
    }
}

fn of_proxy(proxy: &ProxyInfo) -> End {
    End { namespace: proxy.namespace.clone(), name: proxy.name.clone() }
}

/// Of an identity in Istio's form the service account, which is the name of most workloads.
fn of_identity(identity: &str) -> End {
    let parsed = SpiffeId::parse(identity).ok();
    let path = parsed.as_ref().map(|id| id.as_str().splitn(4, '/').nth(3).unwrap_or_default().to_owned());
    match path.as_deref().map(|path| path.split('/').collect::<Vec<_>>()).as_deref() {
        Some(["ns", namespace, "sa", name]) => End { namespace: (*namespace).to_owned(), name: (*name).to_owned() },
        _ => End { namespace: String::new(), name: identity.to_owned() },
    }
}

/// `cart.shop.svc.cluster.local` is cart in shop; another name stands for itself.
fn of_host(host: &str) -> End {
    let mut parts = host.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(namespace), Some("svc")) => End { namespace: namespace.to_owned(), name: name.to_owned() },
        _ => End { namespace: String::new(), name: host.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
    const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

    fn seen(direction: Direction, transport: Transport, allowed: u64, peer: Client) -> Observation {
        Observation {
            direction,
            port: 8080,
            transport,
            peer,
            allowed,
            refused: 0,
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: Timestamp::default(),
            last_seen: Timestamp::from_unix(7),
            last_refusal: None,
            days: Vec::new(),
        }
    }

    fn side(name: &str, admin: &str, observations: Vec<Observation>) -> Side {
        let proxy = ProxyInfo {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            service: name.to_owned(),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
            ..ProxyInfo::default()
        };
        let target = Target { address: AdminAddress::parse(admin).unwrap(), name: None };
        Side { target, seen: Observations { proxy, observations, ..Observations::default() } }
    }

    fn identity(id: &str) -> Client {
        Client { identity: Some(id.to_owned()), ..Client::default() }
    }

    fn address(address: &str) -> Client {
        Client { address: address.parse().ok(), ..Client::default() }
    }

    fn found(sides: &[Side]) -> Vec<(String, String, u64, u64)> {
        let edges = edges(sides, &ContainerNames::default());
        edges.into_iter().map(|edge| (edge.src, edge.dst, edge.mutual_tls, edge.other)).collect()
    }

    #[test]
    fn an_edge_that_both_sides_see_is_one_and_counts_once() {
        let sides = [
            side("web", "10.0.0.1", vec![seen(Direction::Outbound, Transport::Mtls, 3, identity(CART))]),
            side("cart", "10.0.0.2", vec![seen(Direction::Inbound, Transport::Mtls, 5, identity(WEB))]),
        ];
        let merged = edges(&sides, &ContainerNames::default());
        assert_eq!(merged.len(), 1, "{merged:?}");
        let edge = &merged[0];
        assert_eq!((edge.src.as_str(), edge.dst.as_str(), edge.mutual_tls), ("web", "cart", 5));
        assert_eq!((edge.client_id.as_deref(), edge.server_id.as_deref()), (Some(WEB), Some(CART)));
    }

    #[test]
    fn replicas_add_up() {
        let replica =
            |admin: &str| side("cart", admin, vec![seen(Direction::Inbound, Transport::Mtls, 5, identity(WEB))]);
        let expected = ("web".to_owned(), "cart".to_owned(), 10, 0);
        assert_eq!(found(&[replica("10.0.0.2"), replica("10.0.0.3")]), [expected]);
    }

    #[test]
    fn plaintext_between_two_sidecars_is_matched_by_address_and_service() {
        let to_cart = Client { service: Some("cart.shop.svc.cluster.local".to_owned()), ..address("10.0.0.2") };
        let sides = [
            side("web", "10.0.0.1", vec![seen(Direction::Outbound, Transport::Plaintext, 2, to_cart)]),
            side("cart", "10.0.0.2", vec![seen(Direction::Inbound, Transport::Plaintext, 2, address("10.0.0.1"))]),
        ];
        assert_eq!(found(&sides), [("web".to_owned(), "cart".to_owned(), 0, 2)]);
        assert_eq!(edges(&sides, &ContainerNames::default())[0].client_id, None, "nobody has proven it");
    }

    #[test]
    fn a_client_without_a_sidecar_has_its_name_or_its_address() {
        let named = Client { name: Some("cron".to_owned()), ..address("10.0.0.9") };
        let observations = vec![
            seen(Direction::Inbound, Transport::Plaintext, 1, named),
            seen(Direction::Inbound, Transport::Plaintext, 1, address("10.0.0.8")),
            seen(Direction::Inbound, Transport::Mtls, 1, identity("spiffe://other/ns/x/sa/batch")),
            seen(Direction::Inbound, Transport::Mtls, 1, identity("spiffe://other/machine")),
        ];
        let sources: Vec<_> =
            found(&[side("cart", "127.0.0.1", observations)]).into_iter().map(|edge| edge.0).collect();
        assert_eq!(sources, ["10.0.0.8", "cron (10.0.0.9)", "spiffe://other/machine", "batch"]);
    }
}
