//! The clients that STRICT would refuse: who they are, and what to do about each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_api::Transport;

use crate::address_book::AddressBook;
use crate::merge::{PeerKey, PeerTraffic};
use crate::readiness::fix::{self, Scene};
use crate::readiness::model::{Client, What};
use crate::readiness::secured::Secured;

/// The longest gap between the checks of one that looks like a health check, in seconds.
const CHECK_INTERVAL: u64 = 60;
/// The most bytes of one check, in each direction.
const CHECK_BYTES: u64 = 2048;
/// The fewest checks that show a rhythm.
const CHECKS: u64 = 10;

/// The clients in the window that were let through without mTLS; those with the same name are one.
pub(super) fn of(
    traffic: &[(PeerKey, PeerTraffic)],
    book: &AddressBook<'_>,
    secured: &Secured,
    scene: &Scene<'_>,
) -> Vec<Client> {
    let mut clients: BTreeMap<(String, Transport, What), (BTreeSet<IpAddr>, PeerTraffic)> = BTreeMap::new();
    let others = |(key, seen): &&(PeerKey, PeerTraffic)| key.transport != Transport::Mtls && seen.window.allowed > 0;
    for (key, seen) in traffic.iter().filter(others) {
        let group = (book.shown(&key.peer, seen.last), key.transport, what(key, seen, book));
        match clients.get_mut(&group) {
            Some((addresses, known)) => {
                addresses.extend(key.peer.address());
                known.add(seen.clone());
            }
            None => drop(clients.insert(group, (key.peer.address().into_iter().collect(), seen.clone()))),
        }
    }
    let client = |((client, transport, what), (addresses, seen)): ((String, _, _), (BTreeSet<IpAddr>, PeerTraffic))| {
        let address = addresses.first().copied();
        let called = address.map(|address| book.called(address, seen.last));
        let sidecar = address.and_then(|address| book.sidecar(address, seen.last)).map(str::to_owned);
        let service = called.filter(|called| called.is_compose_service).and_then(|called| called.name);
        let subject = fix::Subject { what, client: &client, service: service.as_deref(), dialled: seen.dialled };
        let called = (scene.name, scene.port);
        let what = if secured.is_after(&client, called, seen.last) { What::SidecarNow } else { what };
        let fixes = fix::of(&fix::Subject { what, ..subject }, scene);
        Client {
            addresses,
            transport,
            what,
            sidecar,
            connections: seen.window.allowed,
            first_seen: seen.first,
            last_seen: seen.last,
            interval_seconds: seen.interval(),
            fixes,
            client,
        }
    };
    let mut clients: Vec<Client> = clients.into_iter().map(client).collect();
    clients.sort_by(|one, other| {
        other.connections.cmp(&one.connections).then_with(|| (&one.client, one.what).cmp(&(&other.client, other.what)))
    });
    clients
}

fn what(key: &PeerKey, seen: &PeerTraffic, book: &AddressBook<'_>) -> What {
    match (key.transport, key.peer.address()) {
        (Transport::Unknown, _) => What::NotInspected,
        (Transport::Tls, _) => What::OwnTls,
        (_, None) => What::NoSidecar,
        (_, Some(address)) => {
            let called = book.called(address, seen.last);
            if book.sidecar(address, seen.last).is_some() {
                What::BesideSidecar
            } else if is_check(seen) && (called.name.is_none() || called.is_gateway()) {
                What::HealthCheck
            } else if address.is_loopback() {
                What::ThisHost
            } else if called.is_gateway() {
                What::HostGateway
            } else {
                What::NoSidecar
            }
        }
    }
}

fn is_check(seen: &PeerTraffic) -> bool {
    let most = seen.total.saturating_mul(CHECK_BYTES);
    seen.total >= CHECKS
        && seen.interval().is_some_and(|interval| (1..=CHECK_INTERVAL).contains(&interval))
        && seen.received <= most
        && seen.sent <= most
}
