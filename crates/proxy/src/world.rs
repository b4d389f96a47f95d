//! What all connections share, and the snapshot that each takes of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_net::is_own_address;
use portcullis_policy::EffectivePolicy;
use portcullis_settings::Settings;
use portcullis_telemetry::Metrics;
use portcullis_tls::{CredentialReader, Credentials, Unavailable};
use tokio::sync::Semaphore;

use crate::drain::DrainToken;
use crate::route::Routes;

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
    pub(crate) routes: Routes,
    own_ports: HashSet<u16>,
}

/// One connection's view: taken once, kept to its end, so that generations never mix.
pub struct Snapshot {
    /// The effective policy.
    pub policy: Arc<EffectivePolicy>,
    /// The credentials, or why there are none.
    pub credentials: Result<Arc<Credentials>, Unavailable>,
}

impl World {
    /// Puts the parts together; `connections` is the cap over all listeners.
    #[must_use]
    pub fn new(
        settings: Settings,
        policy: Arc<ArcSwap<EffectivePolicy>>,
        credentials: CredentialReader,
        metrics: Metrics,
        drain: DrainToken,
    ) -> Self {
        let open_files = crate::limits::raise_open_files();
        let connections = settings.limits.connections.unwrap_or_else(|| crate::limits::connections(open_files));
        let own_ports = settings.listeners().iter().map(|(_, address)| address.port()).collect();
        let routes = Routes::new(settings.outbound.routes.clone(), settings.outbound.otherwise);
        let permits = Arc::new(Semaphore::new(connections));
        Self { settings, policy, credentials, metrics, drain, permits, routes, own_ports }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { policy: self.policy.load_full(), credentials: self.credentials.current() }
    }

    /// Whether a captured connection would come back to this proxy itself: one of its own ports, on an address of this
    /// host. That of the captured connection is of no help: a redirect replaces the original one.
    pub(crate) fn is_self(&self, destination: SocketAddr) -> bool {
        self.is_own_port(destination.port()) && is_own_address(destination.ip())
    }

    /// Whether a port is one that this proxy listens on itself.
    pub(crate) fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }
}
