//! One client that a change cut off.

use std::net::SocketAddr;

use portcullis_api::{Direction, EndedConnection, Observations, ProxyInfo, Timestamp, Transport};
use serde::Serialize;

use crate::address_book::AddressBook;
use crate::input::{Names, WorkloadName};
use crate::merge::{self, Peer};
use crate::text::{clean, clean_long};

/// A refused connection that would have been let through before the change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Denied {
    /// The workload whose sidecar refused it.
    pub workload: WorkloadName,
    /// Whether the workload was called, or called.
    pub direction: Direction,
    /// The port of the workload, or the one that it called.
    pub port: Option<u16>,
    /// The other side: the client by its identity, name or address; outbound the destination.
    pub peer: String,
    /// Address of the other side.
    pub address: Option<String>,
    /// By what the bytes were carried.
    pub transport: Transport,
    /// Why, as a label of the outcome table.
    pub reason: String,
    /// The policy that refused.
    pub policy: String,
    /// When.
    pub at: Timestamp,
}

/// Names who was refused. `observations` are those of all sidecars, as far as they are known.
#[must_use]
pub fn denied(proxy: &ProxyInfo, ended: &EndedConnection, observations: &[&Observations], names: &Names) -> Denied {
    let book = AddressBook::new(observations, names);
    let address = |text: &str| text.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical());
    let (namespace, name) = merge::workload_key(proxy);
    let (peer, address) = match ended.direction {
        Direction::Inbound => {
            let from = address(&ended.source);
            let peer = match (&ended.peer, from) {
                (Some(identity), _) => Peer::Identity(clean_long(identity)),
                (None, Some(address)) => Peer::Address(address),
                (None, None) => Peer::Unknown,
            };
            (book.shown(&peer, ended.ended_at), from.map(|address| address.to_string()))
        }
        Direction::Outbound => {
            let to = ended.destination.as_deref().map(clean);
            (ended.service.as_deref().map(clean).or_else(|| to.clone()).unwrap_or_else(|| "unknown".to_owned()), to)
        }
    };
    Denied {
        workload: WorkloadName { namespace, name },
        direction: ended.direction,
        port: ended.port,
        peer,
        address,
        transport: ended.transport,
        reason: clean(&ended.reason),
        policy: clean(&ended.policy),
        at: ended.ended_at,
    }
}

impl Denied {
    /// Whether it is the same client, refused again. Its name may have been found meanwhile.
    #[must_use]
    pub fn is_again(&self, other: &Self) -> bool {
        let who = |it: &Self| match it.transport {
            Transport::Mtls => it.peer.clone(),
            _ => it.address.clone().unwrap_or_else(|| it.peer.clone()),
        };
        let key = |it: &Self| (it.workload.clone(), it.direction, it.port, who(it), it.reason.clone());
        key(self) == key(other)
    }
}

/// `cron-report (10.5.0.9) -> shop/cart:8080: plaintext_in_strict, policy shop/default`.
impl std::fmt::Display for Denied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { workload: WorkloadName { namespace, name }, port, peer, address, reason, policy, .. } = self;
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let at = address.as_ref().filter(|address| *address != peer).map_or_else(String::new, |it| format!(" ({it})"));
        match self.direction {
            Direction::Inbound => write!(f, "{peer}{at} -> {namespace}/{name}{port}: {reason}")?,
            Direction::Outbound => write!(f, "{namespace}/{name} -> {peer}{at}: {reason}")?,
        }
        if policy.is_empty() || policy == "-" { Ok(()) } else { write!(f, ", policy {policy}") }
    }
}
