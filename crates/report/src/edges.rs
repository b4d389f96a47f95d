//! Who talks to whom: the answers of all sidecars as one graph.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{Direction, Observation, Observations, ProxyInfo, Timestamp, Transport};
use serde::Serialize;

use crate::address_book::{AddressBook, shown_identity, workload};
use crate::input::{Answer, Names, split};
use crate::merge::workload_key;
use crate::text::clean;
use crate::window::{Span, Window};

/// Connections from one party to a port of another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// The client.
    pub from: Party,
    /// The server.
    pub to: Party,
    /// The port of the server.
    pub port: u16,
    /// Connections over mTLS in the window that were let through.
    pub mtls: u64,
    /// Connections over TLS that is not the mesh's that were let through.
    pub tls: u64,
    /// Connections without TLS, or with what nobody looked at, that were let through.
    pub plaintext: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// The last one.
    pub last_seen: Timestamp,
}

/// One end of an edge.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// The name of a workload, or what is known of the address.
    pub name: String,
    /// Its namespace; none outside of the mesh.
    pub namespace: Option<String>,
    /// Its SPIFFE ID, if it proved one or has a sidecar that answered.
    pub identity: Option<String>,
}

impl Party {
    /// Whether it has a sidecar that answered, or proved an identity of the mesh.
    #[must_use]
    pub const fn is_meshed(&self) -> bool {
        self.identity.is_some()
    }

    /// The workload of a sidecar that answers.
    #[must_use]
    pub fn of(proxy: &ProxyInfo) -> Self {
        let (namespace, name) = workload_key(proxy);
        Self { name, namespace: Some(namespace), identity: Some(clean(&proxy.identity)) }
    }

    fn outside(name: String) -> Self {
        Self { name, namespace: None, identity: None }
    }
}

/// The edges in the window, by client, server and port. `now` is the reader's clock, for answers that do not tell the time.
///
/// A connection between two sidecars is in the ledgers of both. That of the server counts if it answered, otherwise that of the client.
#[must_use]
pub fn edges(answers: &[Answer], names: &Names, window: Window, now: Timestamp) -> Vec<Edge> {
    let (answered, _) = split(answers);
    let parties = Parties::new(&answered, names);
    let mut edges: BTreeMap<(Party, Party, u16), Edge> = BTreeMap::new();
    for answer in &answered {
        let span = window.of(answer, now);
        let own = Party::of(&answer.proxy);
        for observation in &answer.observations {
            let peer = parties.peer(observation);
            let (from, to) = match observation.direction {
                Direction::Inbound => (peer, own.clone()),
                // Its own sidecar has told.
                Direction::Outbound if parties.has_answered(&peer) => continue,
                Direction::Outbound => (own.clone(), peer),
            };
            let key = (from.clone(), to.clone(), observation.port);
            let new = || Edge {
                from,
                to,
                port: observation.port,
                mtls: 0,
                tls: 0,
                plaintext: 0,
                refused: 0,
                last_seen: Timestamp::default(),
            };
            edges.entry(key).or_insert_with(new).add(observation, span);
        }
    }
    edges.into_values().filter(|edge| edge.all() > 0).collect()
}

impl Edge {
    fn add(&mut self, observation: &Observation, span: Span) {
        let seen = span.connections(observation);
        let count = match observation.transport {
            Transport::Mtls => &mut self.mtls,
            Transport::Tls => &mut self.tls,
            Transport::Plaintext | Transport::Unknown => &mut self.plaintext,
        };
        *count = count.saturating_add(seen.allowed);
        self.refused = self.refused.saturating_add(seen.refused);
        self.last_seen = self.last_seen.max(observation.last_seen);
    }

    fn all(&self) -> u64 {
        [self.tls, self.plaintext, self.refused].into_iter().fold(self.mtls, u64::saturating_add)
    }
}

/// Who is who.
struct Parties<'a> {
    book: AddressBook<'a>,
    /// The workloads behind each identity.
    of_identity: BTreeMap<String, BTreeSet<(String, String)>>,
    /// What has a sidecar at an address, as [`AddressBook::sidecar`] calls it.
    by_shown: BTreeMap<String, Party>,
    /// By service and namespace.
    by_service: BTreeMap<(String, String), Party>,
    answered: BTreeSet<Party>,
}

impl<'a> Parties<'a> {
    fn new(answers: &[&Observations], names: &'a Names) -> Self {
        let mut parties = Self {
            book: AddressBook::new(answers, names),
            of_identity: BTreeMap::new(),
            by_shown: BTreeMap::new(),
            by_service: BTreeMap::new(),
            answered: BTreeSet::new(),
        };
        for answer in answers {
            let (own, proxy) = (Party::of(&answer.proxy), &answer.proxy);
            let shown = if proxy.identity.is_empty() {
                workload(&clean(&proxy.namespace), &clean(&proxy.name))
            } else {
                shown_identity(&proxy.identity)
            };
            parties.of_identity.entry(clean(&proxy.identity)).or_default().insert(workload_key(proxy));
            parties.by_shown.insert(shown, own.clone());
            parties.by_service.insert((clean(&proxy.service), clean(&proxy.namespace)), own.clone());
            parties.answered.insert(own);
        }
        parties
    }

    fn has_answered(&self, party: &Party) -> bool {
        self.answered.contains(party)
    }

    fn peer(&self, observation: &Observation) -> Party {
        let peer = &observation.peer;
        if let Some(identity) = &peer.identity {
            return self.identified(identity);
        }
        let Some(address) = peer.address else { return Party::outside("unknown".to_owned()) };
        // Who has a sidecar at the address and sends plaintext beside it.
        if let Some(party) =
            self.book.sidecar(address, observation.last_seen).and_then(|shown| self.by_shown.get(shown))
        {
            return party.clone();
        }
        match peer.service.as_deref().filter(|_| observation.direction == Direction::Outbound) {
            Some(service) => self.service(service),
            None => Party::outside(self.book.name(address, observation.last_seen)),
        }
    }

    /// `cart.shop.svc.cluster.local` is cart in shop; another name stands for itself.
    fn service(&self, host: &str) -> Party {
        let host = clean(host);
        let mut parts = host.split('.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(name), Some(namespace), Some("svc")) => {
                let key = (name.to_owned(), namespace.to_owned());
                let known = self.by_service.get(&key).cloned();
                let (name, namespace) = key;
                known.unwrap_or(Party { name, namespace: Some(namespace), identity: None })
            }
            _ => Party::outside(host),
        }
    }

    fn identified(&self, identity: &str) -> Party {
        let clean_identity = clean(identity);
        let known = self.of_identity.get(&clean_identity).filter(|workloads| workloads.len() == 1);
        let (name, namespace) = match known.and_then(BTreeSet::first) {
            Some((namespace, name)) => (name.clone(), Some(namespace.clone())),
            None => {
                let shown = shown_identity(identity);
                match shown.rsplit_once('.').filter(|_| !shown.contains('/')) {
                    Some((name, namespace)) => (name.to_owned(), Some(namespace.to_owned())),
                    None => (shown, None),
                }
            }
        };
        Party { name, namespace, identity: Some(clean_identity) }
    }
}

#[cfg(test)]
mod tests {
    use portcullis_api::Client;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn sidecar(name: &str, observations: Vec<Observation>) -> Answer {
        let proxy = ProxyInfo {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            service: name.to_owned(),
            identity: format!("spiffe://cluster.local/ns/shop/sa/{name}"),
            now: Timestamp::from_unix(NOW),
            ..ProxyInfo::default()
        };
        Answer {
            label: name.to_owned(),
            observations: Ok(Observations { proxy, observations, ..Observations::default() }),
        }
    }

    fn seen(direction: Direction, transport: Transport, port: u16, peer: &str) -> Observation {
        let is_identity = peer.starts_with("spiffe:");
        Observation {
            direction,
            port,
            transport,
            peer: Client {
                identity: is_identity.then(|| peer.to_owned()),
                address: (!is_identity).then(|| peer.parse().unwrap()),
                ..Client::default()
            },
            allowed: 3,
            refused: 1,
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: Timestamp::from_unix(NOW - 50),
            last_seen: Timestamp::from_unix(NOW - 5),
            last_refusal: None,
            days: Vec::new(),
        }
    }

    fn all(answers: &[Answer]) -> Vec<(String, String, u16, u64, u64)> {
        let edges = edges(answers, &Names::default(), Window { seconds: 3600 }, Timestamp::from_unix(NOW));
        edges.into_iter().map(|edge| (edge.from.name, edge.to.name, edge.port, edge.mtls, edge.plaintext)).collect()
    }

    fn edge(from: &str, to: &str, port: u16, mtls: u64, plaintext: u64) -> (String, String, u16, u64, u64) {
        (from.to_owned(), to.to_owned(), port, mtls, plaintext)
    }

    #[test]
    fn a_connection_that_both_sides_saw_is_one() {
        let id = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
        let web = || sidecar("web", vec![seen(Direction::Outbound, Transport::Mtls, 80, &id("pay"))]);
        let pay = || sidecar("pay", vec![seen(Direction::Inbound, Transport::Mtls, 80, &id("web"))]);
        assert_eq!(all(&[web(), pay()]), [edge("web", "pay", 80, 3, 0)]);
        assert_eq!(all(&[pay(), web()]), [edge("web", "pay", 80, 3, 0)]);
        // Each alone tells the same.
        assert_eq!(all(&[web()]), [edge("web", "pay", 80, 3, 0)]);
        assert_eq!(all(&[pay()]), [edge("web", "pay", 80, 3, 0)]);
    }

    #[test]
    fn plaintext_of_an_unknown_address_is_an_edge_of_its_own() {
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let pay = sidecar(
            "pay",
            vec![
                seen(Direction::Inbound, Transport::Mtls, 80, id),
                seen(Direction::Inbound, Transport::Plaintext, 80, "10.0.0.9"),
            ],
        );
        assert_eq!(all(&[pay]), [edge("10.0.0.9", "pay", 80, 0, 3), edge("web", "pay", 80, 3, 0)]);
    }

    #[test]
    fn replicas_add_up() {
        let id = "spiffe://cluster.local/ns/shop/sa/web";
        let replica = || sidecar("pay", vec![seen(Direction::Inbound, Transport::Mtls, 80, id)]);
        assert_eq!(all(&[replica(), replica()]), [edge("web", "pay", 80, 6, 0)]);
    }

    #[test]
    fn a_service_that_is_called_in_plaintext_is_the_workload_whose_sidecar_answers() {
        let mut call = seen(Direction::Outbound, Transport::Plaintext, 80, "10.0.0.2");
        call.peer.service = Some("pay.shop.svc.cluster.local".to_owned());
        let web = sidecar("web", vec![call]);
        let alone =
            edges(std::slice::from_ref(&web), &Names::default(), Window { seconds: 3600 }, Timestamp::from_unix(NOW));
        let to = &alone[0].to;
        assert_eq!((to.name.as_str(), to.namespace.as_deref(), to.is_meshed()), ("pay", Some("shop"), false));
        // What its own sidecar has not seen did not reach it.
        assert_eq!(all(&[web, sidecar("pay", Vec::new())]), []);
    }

    #[test]
    fn what_is_before_the_window_is_not_there() {
        let mut old = seen(Direction::Inbound, Transport::Plaintext, 80, "10.0.0.9");
        old.last_seen = Timestamp::from_unix(NOW - 3601);
        old.first_seen = old.last_seen;
        assert_eq!(all(&[sidecar("pay", vec![old])]), []);
    }
}
