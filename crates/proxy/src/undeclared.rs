//! Plaintext to a neighbour that nothing declares.
//!
//! `outbound.trafficPolicy: ALLOW_ANY` sends on what matches neither a route nor the service directory. Into the internet that is what
//! was meant. In a network of this workload's own the destination is mostly a workload, such as one of another compose project: it may
//! have a sidecar and accept mTLS, and nobody has said who it is. No policy of the client asks for more, so the connection is let
//! through; it is counted, and each destination is warned of once an hour. What a ServiceEntry, a route or a policy of `DISABLE` says is
//! plaintext is declared, and never comes here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use portcullis_config::Cidr;
use portcullis_telemetry::Metrics;
use tokio::time::Instant;

/// How long a destination is not warned of again.
const INTERVAL: Duration = Duration::from_secs(3600);
/// How many destinations are remembered, so that an app that scans a network fills neither memory nor log.
const MAX_DESTINATIONS: usize = 256;

/// The networks of this workload, and the destinations in them that were warned of.
pub(crate) struct UndeclaredPeers {
    networks: Vec<Cidr>,
    warned: Mutex<HashMap<SocketAddr, Instant>>,
}

impl UndeclaredPeers {
    pub(crate) fn new(networks: Vec<Cidr>) -> Self {
        Self { networks, warned: Mutex::default() }
    }

    /// Plaintext was sent to `destination`, which no route and no service has.
    pub(crate) fn note(&self, destination: SocketAddr, metrics: &Metrics) {
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        if !self.networks.iter().any(|network| network.contains(destination.ip())) {
            return;
        }
        metrics.undeclared_plaintext.with(&[]).add(1);
        if self.is_due(destination, Instant::now()) {
            tracing::warn!(
                reason = "undeclared_plaintext",
                %destination,
                remedy = "declare it by a ServiceEntry: with its serviceAccount if it has a sidecar, as MESH_EXTERNAL if it is to get plaintext",
                "plaintext was sent to a neighbour that no ServiceEntry and no route declares; if it has a sidecar, this should be mTLS"
            );
        }
    }

    /// Whether this destination is to be warned of now.
    fn is_due(&self, destination: SocketAddr, now: Instant) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < INTERVAL;
        if warned.get(&destination).is_some_and(is_recent) {
            return false;
        }
        if warned.len() >= MAX_DESTINATIONS {
            warned.retain(|_, at| is_recent(at));
        }
        let has_room = warned.len() < MAX_DESTINATIONS;
        if has_room {
            warned.insert(destination, now);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::metrics;

    fn peers() -> UndeclaredPeers {
        UndeclaredPeers::new(vec!["172.18.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()])
    }

    #[test]
    fn only_plaintext_to_a_neighbour_is_counted() {
        let (peers, metrics) = (peers(), metrics());
        for there in [
            "172.18.0.9:80",
            "172.18.0.9:80",
            "[::ffff:172.18.0.9]:80",
            "[fd00::9]:80",
            "8.8.8.8:80",
            "[2001:db8::1]:80",
        ] {
            peers.note(there.parse().unwrap(), &metrics);
        }
        let text = metrics.encode().unwrap();
        assert!(text.contains("\nportcullis_outbound_undeclared_plaintext_total 4\n"), "{text}");
    }

    #[test]
    fn each_destination_is_warned_of_once_an_hour_and_a_scan_of_a_network_is_not() {
        let (peers, now) = (peers(), Instant::now());
        let port = |port: usize| SocketAddr::from(([172, 18, 0, 9], u16::try_from(port).unwrap()));
        assert!(peers.is_due(port(1), now));
        assert!(!peers.is_due(port(1), now + INTERVAL / 2));
        assert!(peers.is_due(port(1), now + INTERVAL));
        let scanned = (2..10_000).filter(|number| peers.is_due(port(*number), now + INTERVAL)).count();
        assert_eq!(scanned, MAX_DESTINATIONS - 1);
        assert!(peers.is_due(port(10_000), now + INTERVAL * 2), "old ones are forgotten");
    }
}
