//! What all connections share, and the snapshot that each takes of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_config::Settings;
use portcullis_net::is_own_address;
use portcullis_policy::EffectivePolicy;
use portcullis_telemetry::Metrics;
use portcullis_tls::{CredentialReader, Credentials, Unavailable};
use tokio::sync::Semaphore;

use crate::changes::{Announcer, Changes};
use crate::drain::DrainToken;
use crate::expiry::Expiries;
use crate::handshakes::Handshakes;
use crate::peers::Peers;
use crate::route::Routes;
use crate::way::Way;

/// Everything that a connection needs to know, shared by all of them.
pub struct World {
    /// The configuration.
    pub settings: Settings,
    /// The effective policy in force; whoever reloads swaps it.
    pub policy: Arc<ArcSwap<EffectivePolicy>>,
    /// The credentials in force.
    pub credentials: CredentialReader,
    /// Where everything is counted.
    pub metrics: Metrics,
    /// The end of it all.
    pub drain: DrainToken,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) changes: Changes,
    pub(crate) expiries: Expiries,
    announcer: Announcer,
    pub(crate) routes: Routes,
    pub(crate) upstreams: Vec<Upstream>,
    own_ports: HashSet<u16>,
    outbound_ports: HashSet<u16>,
}

/// One connection's view: taken once, kept to its end, so that generations never mix.
pub struct Snapshot {
    /// The effective policy.
    pub policy: Arc<EffectivePolicy>,
    /// The credentials, or why there are none.
    pub credentials: Result<Arc<Credentials>, Unavailable>,
    /// Tells of every change after this view was taken.
    pub changes: Changes,
}

/// `outbound.upstreams`, ready for use.
pub(crate) struct Upstream {
    pub(crate) way: Arc<Way>,
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
}

impl World {
    /// Puts the parts together. `changes` are both ends of what whoever reloads announces by.
    #[must_use]
    pub fn new(
        settings: Settings,
        policy: Arc<ArcSwap<EffectivePolicy>>,
        credentials: CredentialReader,
        (announcer, changes): (Announcer, Changes),
        metrics: Metrics,
        drain: DrainToken,
    ) -> Self {
        let own_ports: HashSet<u16> = settings.listeners().iter().map(|(_, address)| address.port()).collect();
        let outbound = &settings.outbound;
        let outbound_ports = outbound.upstreams.iter().map(|upstream| upstream.listen).chain(outbound.transparent);
        let outbound_ports = outbound_ports.map(|address| address.port()).collect();
        let routes = Routes::new(settings.outbound.routes.clone(), settings.outbound.otherwise);
        let connections = crate::limits::in_force(&settings);
        let permits = Arc::new(Semaphore::new(connections));
        let handshakes = Handshakes::new(crate::limits::handshakes(&settings, connections));
        let peers = Peers::new(settings.limits.per_identity);
        let upstreams = settings.outbound.upstreams.iter().map(|upstream| Upstream {
            way: Way::new(upstream.mode.clone(), upstream.service.as_deref()),
            host: Arc::from(upstream.address.host.as_str()),
            port: upstream.address.port,
        });
        let upstreams = upstreams.collect();
        for port in named_ports(&settings, &own_ports) {
            metrics.know_port(port);
        }
        Self {
            settings,
            policy,
            credentials,
            metrics,
            drain,
            permits,
            handshakes,
            peers,
            changes,
            expiries: Expiries::default(),
            announcer,
            routes,
            upstreams,
            own_ports,
            outbound_ports,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        // Before the rest, so that a change while this is put together is told.
        let changes = self.changes.view();
        Snapshot { policy: self.policy.load_full(), credentials: self.credentials.current(), changes }
    }

    /// Has every connection judged again when a chain that one of them rests on ends. Never returns.
    pub(crate) async fn keep_expiring(&self) {
        // The clock that chains are judged by; without credentials there is none to judge.
        let now = || self.credentials.latest().map_or(i64::MIN, |credentials| credentials.now_unix());
        self.expiries.keep(now, &self.announcer).await;
    }

    /// Whether a captured connection would come back to this proxy itself: one of its own ports, on an address of this
    /// host. That of the captured connection is of no help: a redirect replaces the original one.
    pub(crate) fn is_self(&self, destination: SocketAddr) -> bool {
        self.is_own_port(destination.port()) && is_own_address(destination).unwrap_or(true)
    }

    /// Whether a connection that was dialled came out at an outbound listener of this proxy, for ever around. Its inbound
    /// listeners may be dialled: the app may call itself.
    pub(crate) fn is_own_outbound(&self, peer: SocketAddr) -> bool {
        self.outbound_ports.contains(&peer.port()) && is_own_address(peer).unwrap_or(true)
    }

    /// Whether a port is one that this proxy listens on itself.
    pub(crate) fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }
}

/// The ports that the configuration names: few, and chosen by the operator, so each may be a label of its own.
fn named_ports(settings: &Settings, own: &HashSet<u16>) -> Vec<u16> {
    let (inbound, outbound) = (&settings.inbound, &settings.outbound);
    let mut named: Vec<u16> = own.iter().copied().collect();
    named.extend(inbound.ports.iter().map(|port| port.port));
    named.extend(inbound.apps.keys().copied());
    named.extend(outbound.upstreams.iter().map(|upstream| upstream.address.port));
    named.extend(outbound.routes.iter().flat_map(|route| route.ports.iter().copied()));
    named
}

#[cfg(test)]
pub(crate) mod tests {
    use portcullis_identity::SpiffeId;
    use portcullis_telemetry::{Own, Service};

    use super::*;

    pub(crate) fn metrics() -> Metrics {
        let own = Own {
            id: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            labels: std::collections::BTreeMap::new(),
            service: Service::new("cart", "shop"),
        };
        Metrics::new("0.0.0", own).unwrap()
    }
}
