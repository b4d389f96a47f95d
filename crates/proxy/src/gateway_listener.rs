//! Gateway listeners, prepared for connections, and what their files say.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_config::{Cidr, GatewayListener, GatewayRoute};
use portcullis_tls::OneWayServer;

use crate::upstream::Upstream;

/// The TLS of every listener, by its index in `gateway.listeners`; `None` for one that serves plaintext. A change of the files swaps
/// all of them at once.
#[derive(Debug, Default)]
pub struct GatewayServers(ArcSwap<Vec<Option<Arc<OneWayServer>>>>);

impl GatewayServers {
    /// Puts others in force, for new connections.
    pub fn publish(&self, servers: Vec<Option<Arc<OneWayServer>>>) {
        self.0.store(Arc::new(servers));
    }

    /// The last second at which every certificate is valid, in Unix time; `None` where no listener has TLS.
    #[must_use]
    pub fn not_after_unix(&self) -> Option<i64> {
        self.0.load().iter().flatten().map(|server| server.not_after_unix()).min()
    }

    pub(crate) fn get(&self, listener: usize) -> Option<Arc<OneWayServer>> {
        self.0.load().get(listener).cloned().flatten()
    }
}

/// One of `gateway.listeners`.
pub(crate) struct GatewayRouter {
    balancers: Vec<Cidr>,
    has_tls: bool,
    routes: Vec<(GatewayRoute, Arc<Upstream>)>,
}

impl GatewayRouter {
    pub(crate) fn new(listener: &GatewayListener) -> Self {
        let routes = listener.routes.iter().map(|route| (route.clone(), Upstream::new(&route.target)));
        Self { balancers: listener.balancers.clone(), has_tls: listener.tls.is_some(), routes: routes.collect() }
    }

    /// Whether connections from this address begin with a PROXY header.
    pub(crate) fn is_balancer(&self, address: IpAddr) -> bool {
        self.balancers.iter().any(|range| range.contains(address))
    }

    pub(crate) const fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Where a client goes that asks for this server name: the first route that takes it.
    pub(crate) fn route(&self, sni: Option<&str>) -> Option<&Arc<Upstream>> {
        self.routes.iter().find(|(route, _)| route.takes(sni)).map(|(_, upstream)| upstream)
    }
}
