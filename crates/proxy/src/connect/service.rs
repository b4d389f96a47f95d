//! To one of the endpoints of a service of the directory.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_dns::LOOKUP_TIMEOUT;
use portcullis_policy::directory::{EVERY_PORT, Found, Lookup};
use portcullis_telemetry::{ConnRecord, Ending};
use tokio::time::{Instant, timeout};

use super::endpoint::{EndpointConn, ServiceTarget, to_endpoint};
use super::failed::{Failed, Next};
use super::upstream_conn::{Connected, OwnCredentials};
use crate::balancer::{self, Candidate, OutlierSettings};
use crate::destination::OutboundTarget;
use crate::downgrade::MtlsDestination;
use crate::endpoints::{self, Dialable};
use crate::outcome::Reason;
use crate::routing_decision::RoutingDecision;
use crate::services::ServiceTable;
use crate::state::ProxyState;

/// How many endpoints of a service are tried for one connection.
const MAX_ATTEMPTS: usize = 3;

/// The endpoints that a connection may try, and what came of those that it did.
struct Attempts<'t> {
    state: &'t Arc<ProxyState>,
    target: &'t OutboundTarget,
    host: &'t Arc<str>,
    found: Found<'t>,
    outliers: OutlierSettings,
    endpoints: Vec<Dialable<'t>>,
    /// Of the endpoints, in the same order.
    candidates: Vec<Candidate>,
    /// For round robin.
    turn: u64,
    random: fastrand::Rng,
    tried: Vec<SocketAddr>,
    /// The endpoints are those of a look-up for this connection.
    is_fresh: bool,
}

/// To one of the endpoints of a service: another one only if no byte of the app was sent, and never after a refused certificate.
pub(super) async fn to_service(
    state: &Arc<ProxyState>,
    target: &OutboundTarget,
    table: &ServiceTable,
    credentials: OwnCredentials,
    record: &mut ConnRecord,
) -> Result<Connected, Ending> {
    let Lookup::Found(found) = state.destinations.in_directory(target, table) else {
        // A name moved between two look-ups.
        return Err(Ending::new(Reason::NoEndpoint, Some(target.to_string())));
    };
    let names = table.names(found.service);
    record.service = Some(names.metrics);
    let number = if found.port.number == EVERY_PORT { target.port() } else { found.port.number };
    let peer = MtlsDestination::Service(Arc::clone(&names.host), number);
    let is_secured = found.choice.endpoints().iter().any(|endpoint| endpoint.transport.is_secured());
    let service = ServiceTarget { target, table, host: Arc::clone(&names.host), peer, is_secured };
    let mut attempts = Attempts::new(state, target, &service.host, found);
    let mut failed: Option<Ending> = None;
    while attempts.tried.len() < MAX_ATTEMPTS {
        let Some(index) = attempts.next().await else { break };
        let (Some(endpoint), Some(candidate)) = (attempts.endpoint(index), attempts.candidates.get(index)) else {
            break;
        };
        let active = candidate.state.enter();
        match to_endpoint(state, &service, &endpoint, &credentials, record).await {
            Ok(EndpointConn { upstream, via }) => {
                candidate.state.count_success();
                let routing = RoutingDecision::service(target.clone(), endpoint.address, &service.peer, via, active);
                return Ok(Connected {
                    server: upstream.stream,
                    path: upstream.path,
                    routing: Some(Box::new(routing)),
                });
            }
            Err(Failed { ending, next }) => {
                attempts.failed(index, &endpoint, next);
                if next != Next::Allowed {
                    return Err(ending);
                }
                failed = Some(ending);
            }
        }
    }
    Err(failed.unwrap_or_else(|| Ending::new(Reason::NoEndpoint, Some(target.to_string()))))
}

impl<'t> Attempts<'t> {
    fn new(state: &'t Arc<ProxyState>, target: &'t OutboundTarget, host: &'t Arc<str>, found: Found<'t>) -> Self {
        let endpoints = endpoints::dialable(target, &found, &**state.destinations.names.table());
        let mut attempts = Self {
            state,
            target,
            host,
            outliers: found.port.outlier_detection.map_or_else(OutlierSettings::default, OutlierSettings::from),
            found,
            endpoints: Vec::new(),
            candidates: Vec::new(),
            turn: 0,
            random: fastrand::Rng::new(),
            tried: Vec::new(),
            is_fresh: false,
        };
        attempts.set_endpoints(endpoints);
        attempts
    }

    fn set_endpoints(&mut self, endpoints: Vec<Dialable<'t>>) {
        let specs = endpoints.iter().map(Dialable::spec);
        (self.candidates, self.turn) =
            self.state.endpoints.candidates(self.host, self.found.port.number, specs, Instant::now());
        self.endpoints = endpoints;
    }

    /// The endpoint to try next, by its index. If none is left, its names are looked up again, once.
    async fn next(&mut self) -> Option<usize> {
        loop {
            let policy = self.found.port.load_balancer;
            let now = Instant::now();
            let chosen = balancer::pick(&self.candidates, &self.tried, policy, self.turn, &mut self.random, now);
            // What is known of the names may be older than the endpoints are.
            if chosen.is_some() || std::mem::replace(&mut self.is_fresh, true) {
                return chosen;
            }
            let endpoints = look_up_endpoints(self.state, self.target, &self.found).await;
            self.set_endpoints(endpoints);
        }
    }

    /// One of the endpoints. What a look-up for this connection has found needs no further one, so it has no name then.
    fn endpoint(&self, index: usize) -> Option<Dialable<'t>> {
        let endpoint = self.endpoints.get(index)?;
        Some(Dialable { name: endpoint.name.filter(|_| !self.is_fresh), ..*endpoint })
    }

    /// Counts a failure against an endpoint, unless policy or a certificate caused it, and ejects it after too many.
    fn failed(&mut self, index: usize, endpoint: &Dialable<'_>, next: Next) {
        if next != Next::Never
            && let Some(ejection) = balancer::failed(&self.candidates, index, &self.outliers, Instant::now())
        {
            self.state.metrics.endpoint_ejections.with(&[]).add(1);
            let service = &**self.host;
            tracing::warn!(service, address = %endpoint.address, ?ejection, "an endpoint failed again and again; others are used");
        }
        if next == Next::Allowed {
            if let Some(name) = endpoint.name {
                self.state.destinations.names.refresh_soon(name);
            }
            self.tried.push(endpoint.address);
        }
    }
}

/// The endpoints by a look-up of their names that begins now. Empty if there are no names.
async fn look_up_endpoints<'t>(state: &ProxyState, target: &OutboundTarget, found: &Found<'t>) -> Vec<Dialable<'t>> {
    let mut addresses: HashMap<&str, Vec<IpAddr>> = HashMap::new();
    let lookups = async {
        for name in endpoints::names_to_resolve(target, found) {
            if let Ok(answer) = state.destinations.names.look_up_once(name).await {
                addresses.insert(name, answer.addresses);
            }
        }
    };
    // Those that are not answered by then are left out.
    let _elapsed = timeout(LOOKUP_TIMEOUT, lookups).await;
    endpoints::dialable(target, found, &addresses)
}
