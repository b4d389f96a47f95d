//! The budget for what stalled connections hold, and whom it is charged to.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portcullis_buffers::{Account, Budget};
use portcullis_identity::SpiffeId;
use portcullis_net::admission::ClientSource;
use portcullis_telemetry::{ConnRecord, Direction};

/// The other end of a connection, on the mesh's side: who may send and not read.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum BufferOwner {
    /// Proven by its certificate. All addresses that show it are one peer.
    Identity(SpiffeId),
    /// Without a certificate. Whoever has an IPv6 network may choose any address of it, so the network is the peer.
    Source(ClientSource),
}

/// The budget of all connections of the data plane, `limits.buffers`.
pub type Buffers = Budget<BufferOwner>;

impl BufferOwner {
    pub(crate) fn of(record: &ConnRecord) -> Self {
        if let Some(id) = &record.peer {
            return Self::Identity(id.clone());
        }
        let address = match record.direction {
            Direction::Inbound => Some(record.src_addr),
            Direction::Outbound => record.dst_addr,
        };
        Self::Source(ClientSource::of(address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip())))
    }
}

/// The account that an admitted connection is charged to.
pub(crate) fn account(buffers: &Arc<Buffers>, record: &ConnRecord) -> Account<BufferOwner> {
    buffers.open(&BufferOwner::of(record))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn an_owner_is_an_identity_or_else_the_far_source() {
        let metrics = crate::state::tests::metrics();
        let [client, server] = ["192.0.2.1:4000", "192.0.2.2:80"].map(|text| text.parse::<SocketAddr>().unwrap());
        let source = |address: SocketAddr| BufferOwner::Source(ClientSource::of(address.ip()));
        let mut inbound = ConnRecord::open(&metrics, Direction::Inbound, client);
        inbound.dst_addr = Some(server);
        assert_eq!(BufferOwner::of(&inbound), source(client));
        let mut outbound = ConnRecord::open(&metrics, Direction::Outbound, client);
        outbound.dst_addr = Some(server);
        assert_eq!(BufferOwner::of(&outbound), source(server));
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        outbound.peer = Some(id.clone());
        assert_eq!(BufferOwner::of(&outbound), BufferOwner::Identity(id));
        let mapped = ConnRecord::open(&metrics, Direction::Inbound, "[::ffff:192.0.2.1]:4000".parse().unwrap());
        assert_eq!(BufferOwner::of(&mapped), source(client), "one host is one peer on every kind of listener");
    }

    #[test]
    fn without_an_identity_the_addresses_of_one_ipv6_network_are_one_peer() {
        let metrics = crate::state::tests::metrics();
        let peer = |address: &str| {
            BufferOwner::of(&ConnRecord::open(
                &metrics,
                Direction::Inbound,
                format!("[{address}]:4000").parse().unwrap(),
            ))
        };
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:0:0:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
    }
}
