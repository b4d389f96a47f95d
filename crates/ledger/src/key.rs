//! What tells one observation from another.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use portcullis_api::{Direction, Transport};
use portcullis_identity::SpiffeId;

/// What is known of a connection when it is let through or refused.
#[derive(Clone, Copy, Debug)]
pub struct ConnAttributes<'a> {
    /// Which side the sidecar is on.
    pub direction: Direction,
    /// Inbound: the port of the workload. Outbound: the port that was dialled.
    pub port: u16,
    /// By what the bytes are carried.
    pub transport: Transport,
    /// The verified SPIFFE ID of the peer.
    pub identity: Option<&'a SpiffeId>,
    /// The address of the peer.
    pub address: Option<IpAddr>,
    /// Inbound: the address of the workload that was dialled.
    pub dialled: Option<IpAddr>,
    /// Outbound: the service.
    pub service: Option<&'a Arc<str>>,
    /// The server name in the ClientHello.
    pub server_name: Option<&'a str>,
}

/// Why a connection was refused, or cut.
#[derive(Clone, Copy, Debug)]
pub struct RefusalCause<'a> {
    /// A label of the outcome table.
    pub reason: &'static str,
    /// The policy that decided, `namespace/name`, or `-`.
    pub policy: &'a Arc<str>,
}

/// One observation.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    pub(crate) direction: Direction,
    pub(crate) port: u16,
    pub(crate) transport: Transport,
    pub(crate) peer: PeerKey,
}

/// Who the peer is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum PeerKey {
    Identity(SpiffeId),
    Address(IpAddr),
    /// Outbound: refused before there was an address.
    Unknown,
}

/// Peers that count as one for the limits: an identity, an IPv4 address, or an IPv6 /64, from which one host can use any address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct PeerSource(PeerKey);

impl Key {
    pub(crate) fn of(seen: &ConnAttributes<'_>) -> Self {
        let peer = match (seen.identity, seen.address) {
            (Some(id), _) => PeerKey::Identity(id.clone()),
            (None, Some(address)) => PeerKey::Address(address.to_canonical()),
            (None, None) => PeerKey::Unknown,
        };
        Self { direction: seen.direction, port: seen.port, transport: seen.transport, peer }
    }

    pub(crate) fn source(&self) -> PeerSource {
        PeerSource(match &self.peer {
            PeerKey::Address(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                PeerKey::Address(IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)))
            }
            peer => peer.clone(),
        })
    }
}
