//! The clients that STRICT would refuse: who they are, and what to do about each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_api::{Timestamp, Transport};
use serde::Serialize;

use crate::address_book::{AddressBook, Called, shown_identity};
use crate::merge::{Peer, PeerKey, Seen};
use crate::readiness::fix::{self, Fix, Scene};

/// The longest gap between the checks of one that looks like a health check, in seconds.
const CHECK_INTERVAL: u64 = 60;
/// The most bytes of one check, in each direction.
const CHECK_BYTES: u64 = 2048;
/// The fewest checks that show a rhythm.
const CHECKS: u64 = 10;

/// A client that STRICT would refuse.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Its name, else its address.
    pub client: String,
    /// The addresses that it was seen with.
    pub addresses: BTreeSet<IpAddr>,
    /// How it speaks; `-` if the port is DISABLE, where nobody looks.
    pub transport: Transport,
    /// What it is, as far as that is known.
    pub what: What,
    /// Who has a sidecar at its address.
    pub sidecar: Option<String>,
    /// Its connections in the window that were let through.
    pub connections: u64,
    /// Its first connection ever.
    pub first_seen: Timestamp,
    /// Its last one.
    pub last_seen: Timestamp,
    /// The mean time between two connections.
    pub interval_seconds: Option<u64>,
    /// What to do, one of these.
    pub fixes: Vec<Fix>,
}

/// What a client is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// No sidecar is known at its address.
    NoSidecar,
    /// There is a sidecar at its address, but it sends plaintext.
    BesideSidecar,
    /// It is a small request in a short, steady rhythm from an address without a name: probably a health check.
    HealthCheck,
    /// The host of the containers: what comes through a published port.
    HostGateway,
    /// A process on the host of the sidecar.
    ThisHost,
    /// TLS that is not the mesh's. STRICT takes it if it presents a certificate of the mesh.
    OwnTls,
    /// The port is DISABLE, so nobody looked at what it speaks.
    NotInspected,
}

impl What {
    /// In words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSidecar => "no sidecar",
            Self::BesideSidecar => "has a sidecar, but sends plaintext",
            Self::HealthCheck => "looks like a health check",
            Self::HostGateway => "the containers' host, through a published port",
            Self::ThisHost => "a process on the sidecar's host",
            Self::OwnTls => "TLS of its own",
            Self::NotInspected => "not inspected, since the port is DISABLE",
        }
    }
}

/// The clients in the window that were let through without mTLS; those with the same name are one.
pub(super) fn of(traffic: &[(PeerKey, Seen)], book: &AddressBook<'_>, scene: &Scene<'_>) -> Vec<Client> {
    let mut clients: BTreeMap<(String, Transport, What), (BTreeSet<IpAddr>, Seen)> = BTreeMap::new();
    let others = |(key, seen): &&(PeerKey, Seen)| key.transport != Transport::Mtls && seen.window.allowed > 0;
    for (key, seen) in traffic.iter().filter(others) {
        let group = (called(&key.peer, book), key.transport, what(key, seen, book));
        match clients.get_mut(&group) {
            Some((addresses, known)) => {
                addresses.extend(key.peer.address());
                known.add(seen.clone());
            }
            None => drop(clients.insert(group, (key.peer.address().into_iter().collect(), seen.clone()))),
        }
    }
    let client = |((client, transport, what), (addresses, seen)): ((String, _, _), (BTreeSet<IpAddr>, Seen))| {
        let address = addresses.first().copied();
        let called = address.map(|address| book.called(address));
        let sidecar = address.and_then(|address| book.sidecar(address)).map(str::to_owned);
        let service = called.filter(|called| called.is_compose_service).and_then(|called| called.name);
        let subject = fix::Subject { what, client: &client, service: service.as_deref(), dialled: seen.dialled };
        let fixes = fix::of(&subject, scene);
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

fn what(key: &PeerKey, seen: &Seen, book: &AddressBook<'_>) -> What {
    match (key.transport, key.peer.address()) {
        (Transport::Unknown, _) => What::NotInspected,
        (Transport::Tls, _) => What::OwnTls,
        (_, None) => What::NoSidecar,
        (_, Some(address)) => {
            let called = book.called(address);
            if book.sidecar(address).is_some() {
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

fn is_check(seen: &Seen) -> bool {
    let most = seen.total.saturating_mul(CHECK_BYTES);
    seen.total >= CHECKS
        && seen.interval().is_some_and(|interval| (1..=CHECK_INTERVAL).contains(&interval))
        && seen.received <= most
        && seen.sent <= most
}

/// How reports call a peer.
pub(crate) fn called(peer: &Peer, book: &AddressBook<'_>) -> String {
    match peer {
        Peer::Identity(identity) => shown_identity(identity),
        Peer::Address(address) => {
            let Called { name, .. } = book.called(*address);
            name.or_else(|| book.sidecar(*address).map(str::to_owned)).unwrap_or_else(|| address.to_string())
        }
        Peer::Unknown => "unknown".to_owned(),
    }
}
