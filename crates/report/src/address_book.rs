//! Who is at an address: what the observations of all sidecars say together.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_api::{Direction, Observation, Observations, ProxyInfo, Timestamp, Transport};
use portcullis_identity::SpiffeId;

use crate::input::Names;
use crate::merge::Peer;
use crate::text::{clean, clean_long};

/// Names of the address at which a container sees its own host.
const GATEWAY_NAMES: [&str; 4] = ["_gateway", "host-gateway", "host.docker.internal", "gateway.docker.internal"];
/// How reports call the host of containers.
const GATEWAY: &str = "containers' host";

/// What is known of addresses.
#[derive(Debug)]
pub struct AddressBook<'n> {
    entries: BTreeMap<IpAddr, Entry>,
    names: &'n Names,
}

#[derive(Debug, Default)]
struct Entry {
    /// Who has a sidecar there, as reports call them, and when that was seen first and last.
    sidecars: BTreeMap<String, Period>,
    /// The name that was recorded last.
    name: Option<(Timestamp, String)>,
}

/// From when to when something was seen.
#[derive(Clone, Copy, Debug)]
struct Period {
    first: Timestamp,
    last: Timestamp,
}

impl Period {
    /// Whether this can be about the owner that an address had at that time. `since`: when the present one got it.
    fn is_about(self, at: Timestamp, since: Option<Timestamp>) -> bool {
        match since {
            None => true,
            Some(since) if at >= since => self.last >= since,
            Some(since) => self.first < since,
        }
    }
}

/// What a client without an identity is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Called {
    /// Its name; none if only its address is known.
    pub(crate) name: Option<String>,
    /// It is a service of a compose file.
    pub(crate) is_compose_service: bool,
}

impl<'n> AddressBook<'n> {
    /// From all answers, and what else is known of addresses.
    #[must_use]
    pub fn new(answers: &[&Observations], names: &'n Names) -> Self {
        let mut book = Self { entries: BTreeMap::new(), names };
        for answer in answers {
            let own = shown_proxy(&answer.proxy);
            for observation in &answer.observations {
                let peer = &observation.peer;
                if let (Direction::Inbound, Some(dialled)) = (observation.direction, peer.dialled) {
                    book.has_sidecar(dialled, own.clone(), observation);
                }
                let Some(address) = peer.address else { continue };
                if let (Transport::Mtls, Some(identity)) = (observation.transport, &peer.identity) {
                    book.has_sidecar(address, shown_identity(identity), observation);
                }
                if let Some(name) = &peer.name {
                    let entry = book.entries.entry(address.to_canonical()).or_default();
                    let recorded = (observation.last_seen, clean(name));
                    entry.name = entry.name.take().max(Some(recorded));
                }
            }
        }
        book
    }

    fn has_sidecar(&mut self, address: IpAddr, who: String, seen: &Observation) {
        // Everything on one host has these.
        if !address.is_loopback() && !address.is_unspecified() {
            let (first, last) = (seen.first_seen, seen.last_seen);
            let sidecars = &mut self.entries.entry(address.to_canonical()).or_default().sidecars;
            let known = sidecars.entry(who).or_insert(Period { first, last });
            *known = Period { first: known.first.min(first), last: known.last.max(last) };
        }
    }

    /// Who had a sidecar at the address at that time. Several share one if the network between translates addresses, and then none of them
    /// is it for sure.
    pub(crate) fn sidecar(&self, address: IpAddr, at: Timestamp) -> Option<&str> {
        let since = self.names.since(address);
        let sidecars = &self.entries.get(&address.to_canonical())?.sidecars;
        let mut fitting = sidecars.iter().filter(|(_, period)| period.is_about(at, since)).map(|(who, _)| who.as_str());
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// How reports call who was at the address at that time: by name, by the workload that has a sidecar there, or by the address.
    #[must_use]
    pub fn name(&self, address: IpAddr, at: Timestamp) -> String {
        self.shown(&Peer::Address(address), at)
    }

    /// How reports call a peer that was seen at that time. An address has one owner after the other: a name of now says nothing of what
    /// was seen before its container was there.
    pub(crate) fn shown(&self, peer: &Peer, at: Timestamp) -> String {
        match peer {
            Peer::Identity(identity) => shown_identity(identity),
            Peer::Address(address) => {
                let Called { name, .. } = self.called(*address, at);
                name.or_else(|| self.sidecar(*address, at).map(str::to_owned)).unwrap_or_else(|| address.to_string())
            }
            Peer::Unknown => "unknown".to_owned(),
        }
    }

    /// What is at the address. A name that was recorded with a connection goes before one that is known now: the address may have
    /// another owner by now.
    pub(crate) fn called(&self, address: IpAddr, at: Timestamp) -> Called {
        let since = self.names.since(address);
        let is_about = |when: Timestamp| Period { first: when, last: when }.is_about(at, since);
        let recorded = self.entries.get(&address.to_canonical()).and_then(|entry| entry.name.as_ref());
        let recorded = recorded.filter(|(when, _)| is_about(*when));
        let known = self.names.get(address, at);
        let Some((_, recorded)) = recorded else {
            let name = known.map(str::to_owned).or_else(|| is_gateway(address).then(|| GATEWAY.to_owned()));
            return Called { is_compose_service: known.is_some_and(is_service_name), name };
        };
        if GATEWAY_NAMES.contains(&recorded.as_str()) {
            return Called { name: Some(GATEWAY.to_owned()), is_compose_service: false };
        }
        // The engine calls a container by its service, DNS by its service and project.
        let service = known.filter(|known| recorded.contains(known)).or_else(|| compose_service(recorded));
        let name = Some(service.unwrap_or(recorded).to_owned());
        Called { name, is_compose_service: service.is_some_and(is_service_name) }
    }
}

impl Called {
    /// Whether it is the host of the containers: what comes through a published port.
    pub(crate) fn is_gateway(&self) -> bool {
        self.name.as_deref() == Some(GATEWAY)
    }
}

/// The first address of a network is its gateway with Docker and Podman, unless somebody chose another one.
const fn is_gateway(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() && matches!(v4.octets(), [.., 1]),
        IpAddr::V6(_) => false,
    }
}

/// `PROJECT-SERVICE-NUMBER.PROJECT_NETWORK`, which is what Docker's DNS calls a container of compose; docker-compose 1 wrote `_`.
fn compose_service(name: &str) -> Option<&str> {
    let (host, network) = name.trim_end_matches('.').split_once('.')?;
    let (host, number) = host.rsplit_once(['-', '_'])?;
    number.parse::<u32>().ok()?;
    let project = network.char_indices().filter(|(_, c)| *c == '_').map(|(at, _)| network.split_at(at).0);
    let service =
        |project: &str| host.strip_prefix(project)?.strip_prefix(['-', '_']).filter(|service| !service.is_empty());
    project.rev().find_map(service)
}

/// Whether it can be written on a command line as it is.
fn is_service_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    name.bytes().all(is_plain) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// How reports call the workload of a sidecar.
pub(crate) fn shown_proxy(proxy: &ProxyInfo) -> String {
    if proxy.identity.is_empty() {
        workload(&clean(&proxy.namespace), &clean(&proxy.name))
    } else {
        shown_identity(&proxy.identity)
    }
}

/// `NAME.NAMESPACE`, as istioctl names a workload.
pub(crate) fn workload(namespace: &str, name: &str) -> String {
    format!("{name}.{namespace}")
}

/// An identity as reports show it: the workload if it is one of Istio's form.
pub(crate) fn shown_identity(identity: &str) -> String {
    match SpiffeId::parse(identity).ok().as_ref().and_then(SpiffeId::istio) {
        Some(id) => workload(id.namespace, id.service_account),
        None => clean_long(identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_found_in_the_name_of_a_container_of_compose() {
        for (name, service) in [
            ("shop-cron-report-1.shop_default", Some("cron-report")),
            ("shop-cron-report-1.shop_default.", Some("cron-report")),
            ("my_shop-web-12.my_shop_back_end", Some("web")),
            ("shop_cron-report_1.shop_default", Some("cron-report")),
            ("shop-1.shop_default", None),
            ("web.shop.svc.cluster.local", None),
            ("other-web-1.shop_default", None),
            ("shop-web-x.shop_default", None),
            ("", None),
        ] {
            assert_eq!(compose_service(name), service, "{name}");
        }
    }

    #[test]
    fn only_plain_names_are_put_into_commands() {
        assert!(is_service_name("cron-report_2.x"));
        for wrong in ["", "-rf", "a b", "a;b", "a$(b)", "a'b", "ä"] {
            assert!(!is_service_name(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_first_address_of_a_private_network_is_its_gateway() {
        let is = |text: &str| is_gateway(text.parse().unwrap());
        assert!(is("172.18.0.1") && is("10.5.0.1"));
        assert!(!is("127.0.0.1") && !is("8.8.8.1") && !is("10.5.0.2") && !is("fd00::1"));
    }
}
