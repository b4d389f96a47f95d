//! What all connections share, and the snapshot that each takes of it.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use portcullis_config::{Cidr, Settings};
use portcullis_dns::Names;
use portcullis_identity::SpiffeId;
use portcullis_net::admission::{ConnectionLimit, KeyedLimit};
use portcullis_net::is_own_address;
use portcullis_policy::EffectivePolicy;
use portcullis_telemetry::Metrics;
use portcullis_tls::{CredentialReader, Credentials, Unavailable};
use tokio::time::{Instant, sleep};

use crate::balancer::EndpointStates;
use crate::buffers::Buffers;
use crate::changes::{ChangeNotifier, ChangeWatch};
use crate::destination::Destinations;
use crate::downgrade::SeenOverMtls;
use crate::drain::DrainToken;
use crate::gateway_listener::{GatewayRouter, GatewayServers};
use crate::outbound_hbone::WithoutHbone;
use crate::routes::Routes;
use crate::services::ServiceTable;
use crate::trust_expiry::TrustExpiries;
use crate::undeclared::UndeclaredPeers;
use crate::upstream::Upstream;

/// How often endpoints that nobody uses are looked for, and the metrics of names and endpoints are set.
const TEND_ENDPOINTS: Duration = Duration::from_secs(2);

/// What all connections share.
pub struct ProxyState {
    /// The configuration.
    pub settings: Settings,
    /// The effective policy in force; a reload swaps it.
    pub policy: Arc<ArcSwap<EffectivePolicy>>,
    /// The credentials in force.
    pub credentials: CredentialReader,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The progress of the shutdown.
    pub drain: DrainToken,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) connections: ConnectionLimit,
    pub(crate) per_identity: Arc<KeyedLimit<SpiffeId>>,
    /// Tunnels, apart from the streams that they carry.
    pub(crate) tunnels_per_identity: Arc<KeyedLimit<SpiffeId>>,
    pub(crate) changes: ChangeWatch,
    pub(crate) trust_expiries: TrustExpiries,
    notifier: ChangeNotifier,
    pub(crate) destinations: Destinations,
    /// What all connections to one endpoint share.
    pub(crate) endpoints: EndpointStates,
    pub(crate) seen_over_mtls: SeenOverMtls,
    pub(crate) without_hbone: WithoutHbone,
    pub(crate) undeclared: UndeclaredPeers,
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    pub(crate) gateway: Vec<GatewayRouter>,
    pub(crate) gateway_servers: Arc<GatewayServers>,
    /// What outbound tunnels say of this workload.
    pub(crate) baggage: Option<HeaderValue>,
    own_ports: HashSet<u16>,
    outbound_ports: HashSet<u16>,
}

/// What [`ProxyState::new`] needs.
pub struct ProxyParts {
    /// The configuration.
    pub settings: Settings,
    /// The effective policy in force; a reload swaps it.
    pub policy: Arc<ArcSwap<EffectivePolicy>>,
    /// The service directory in force; a reload swaps it.
    pub services: Arc<ArcSwap<ServiceTable>>,
    /// The names that are resolved for it and for routes.
    pub names: Arc<Names>,
    /// The credentials in force.
    pub credentials: CredentialReader,
    /// The TLS of gateway listeners in force; a reload swaps it.
    pub gateway_servers: Arc<GatewayServers>,
    /// Announces changes of policy and credentials.
    pub notifier: ChangeNotifier,
    /// Receives what `notifier` announces.
    pub changes: ChangeWatch,
    /// The metrics of this process.
    pub metrics: Metrics,
    /// The progress of the shutdown.
    pub drain: DrainToken,
    /// The budget for the memory of stalled connections.
    pub buffers: Arc<Buffers>,
    /// The networks that this workload is attached to, without loopback.
    pub own_networks: Vec<Cidr>,
}

/// The policy and credentials that one connection is decided with. Taken once, so that it never mixes two generations.
pub struct Snapshot {
    /// The effective policy.
    pub policy: Arc<EffectivePolicy>,
    /// The credentials, or why there are none.
    pub credentials: Result<Arc<Credentials>, Unavailable>,
    /// Reports every change after the snapshot was taken.
    pub changes: ChangeWatch,
}

impl ProxyState {
    /// Builds the shared state from its parts.
    #[must_use]
    pub fn new(parts: ProxyParts) -> Self {
        let ProxyParts {
            settings,
            policy,
            services,
            names,
            credentials,
            gateway_servers,
            notifier,
            changes,
            metrics,
            drain,
            buffers,
            own_networks,
        } = parts;
        let own_ports: HashSet<u16> = settings.listeners().iter().map(|(_, address)| address.port()).collect();
        let outbound = &settings.outbound;
        let outbound_ports = outbound.upstreams.iter().map(|upstream| upstream.listen).chain(outbound.transparent);
        let gateway_listeners = settings.gateway.listeners.iter().map(|listener| listener.listen);
        let outbound_ports = outbound_ports.chain(gateway_listeners);
        let outbound_ports = outbound_ports.map(|address| address.port()).collect();
        let routes = Routes::new(settings.outbound.routes.clone(), settings.outbound.otherwise);
        let connections = crate::limits::connections(&settings);
        let connections = ConnectionLimit::new(connections, crate::limits::handshakes(&settings, connections));
        let tunnels_per_identity = KeyedLimit::per_key(settings.limits.per_identity);
        let per_identity = KeyedLimit::per_key(settings.limits.per_identity);
        let upstreams = settings.outbound.upstreams.iter().map(|upstream| Upstream::new(&upstream.target)).collect();
        let gateway = settings.gateway.listeners.iter().map(GatewayRouter::new).collect();
        for port in named_ports(&settings, &own_ports) {
            metrics.allow_port_label(port);
        }
        Self {
            baggage: baggage(&settings),
            settings,
            policy,
            credentials,
            metrics,
            drain,
            buffers,
            connections,
            per_identity,
            tunnels_per_identity,
            changes,
            trust_expiries: TrustExpiries::default(),
            notifier,
            destinations: Destinations { routes, services, names },
            endpoints: EndpointStates::default(),
            seen_over_mtls: SeenOverMtls::default(),
            without_hbone: WithoutHbone::default(),
            undeclared: UndeclaredPeers::new(own_networks),
            upstreams,
            gateway,
            gateway_servers,
            own_ports,
            outbound_ports,
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        // First, so that a change while the rest is read is reported.
        let changes = self.changes.subscribe();
        Snapshot { policy: self.policy.load_full(), credentials: self.credentials.current(), changes }
    }

    /// Forgets endpoints that nobody uses, and keeps the metrics of names and endpoints up to date. Never returns.
    pub(crate) async fn tend_endpoints(&self) {
        loop {
            let names = &self.destinations.names;
            for (result, count) in names.lookup_counts() {
                self.metrics.dns_lookups.with(&[result]).raise_to(count);
            }
            self.metrics.set_endpoints(names.table().failed(), self.endpoints.sweep(Instant::now()));
            sleep(TEND_ENDPOINTS).await;
        }
    }

    /// Makes every connection re-authorise itself when a chain that one of them rests on expires. Never returns.
    pub(crate) async fn watch_trust_expiries(&self) {
        // The clock that chains are verified with; without credentials there is no chain.
        let now = || self.credentials.latest().map_or(i64::MIN, |credentials| credentials.now_unix());
        self.trust_expiries.run(now, &self.notifier).await;
    }

    /// Whether a captured connection would loop back to this proxy: one of its own ports, on an address of this host. The local
    /// address of the captured connection does not help, since a redirect replaces the original one.
    pub(crate) fn would_loop_back(&self, destination: SocketAddr) -> bool {
        self.is_own_port(destination.port()) && is_own_address(destination).unwrap_or(true)
    }

    /// Whether a dialled connection ends at an outbound or gateway listener of this proxy, which would loop for ever. Its inbound
    /// listeners may be dialled: the app may call itself.
    pub(crate) fn is_own_outbound(&self, peer: SocketAddr) -> bool {
        self.outbound_ports.contains(&peer.port()) && is_own_address(peer).unwrap_or(true)
    }

    /// Whether this proxy itself listens on the port.
    pub(crate) fn is_own_port(&self, port: u16) -> bool {
        self.own_ports.contains(&port)
    }
}

/// The ports that the configuration names: few, and chosen by the operator, so each may be a label value.
fn named_ports(settings: &Settings, own: &HashSet<u16>) -> Vec<u16> {
    let (inbound, outbound) = (&settings.inbound, &settings.outbound);
    let mut named: Vec<u16> = own.iter().copied().collect();
    named.extend(inbound.ports.iter().map(|port| port.port));
    named.extend(inbound.apps.keys().copied());
    named.extend(settings.upstream_targets().map(|target| target.address.port));
    named.extend(outbound.routes.iter().flat_map(|route| route.ports.iter().copied()));
    named
}

/// What this workload says of itself, as ztunnel does.
fn baggage(settings: &Settings) -> Option<HeaderValue> {
    let (workload, service) = (&settings.workload, &settings.service);
    let text = format!(
        "k8s.namespace.name={},k8s.deployment.name={},service.name={service}",
        workload.namespace, workload.name
    );
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use portcullis_identity::SpiffeId;
    use portcullis_telemetry::{LocalWorkload, Service};

    use super::*;

    pub(crate) fn metrics() -> Metrics {
        let own = LocalWorkload {
            id: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            labels: std::collections::BTreeMap::new(),
            service: Service::new("cart", "shop"),
        };
        Metrics::new("0.0.0", own).unwrap()
    }
}
