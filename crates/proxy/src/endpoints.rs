//! The endpoints of a service that could be dialled now.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portcullis_dns::Table;
use portcullis_net::is_own_address;
use portcullis_policy::directory::{Choice, EVERY_PORT, Endpoint, EndpointAddress, Found, Transport};

use crate::balancer::Spec;
use crate::destination::OutboundTarget;
use crate::state::ProxyState;

/// One address that could be dialled.
#[derive(Clone, Copy)]
pub(crate) struct Dialable<'t> {
    pub(crate) address: SocketAddr,
    pub(crate) transport: &'t Transport,
    /// Whether mTLS may go through an HBONE tunnel.
    pub(crate) takes_hbone: bool,
    /// 0 is the closest locality.
    pub(crate) priority: u8,
    /// Its share among endpoints of one priority.
    pub(crate) weight: u32,
    /// The name that the address was found under.
    pub(crate) name: Option<&'t Arc<str>>,
}

/// The addresses of names.
pub(crate) trait Addresses {
    /// Those of one name; none if it is not known.
    fn of(&self, name: &str) -> &[IpAddr];
}

impl Addresses for Table {
    fn of(&self, name: &str) -> &[IpAddr] {
        self.addresses(name)
    }
}

/// What a look-up for one connection found.
impl Addresses for HashMap<&str, Vec<IpAddr>> {
    fn of(&self, name: &str) -> &[IpAddr] {
        self.get(name).map_or(&[], Vec::as_slice)
    }
}

/// What a connection could be made to, in no particular order.
pub(crate) fn dialable<'t>(target: &OutboundTarget, found: &Found<'t>, names: &impl Addresses) -> Vec<Dialable<'t>> {
    match found.choice {
        Choice::Any(endpoints) => endpoints.iter().flat_map(|endpoint| of(target, endpoint, names)).collect(),
        Choice::One(endpoint) => of(target, endpoint, names).collect(),
        Choice::Original(transport) => match target {
            OutboundTarget::Captured(address) => {
                vec![Dialable::original(*address, transport)]
            }
            // Without endpoints and without an original destination there is only the host itself.
            OutboundTarget::Configured(upstream) => {
                let addresses = match upstream.host.parse::<IpAddr>() {
                    Ok(address) => vec![address],
                    Err(_) => names.of(&upstream.host).to_vec(),
                };
                let to = |address| SocketAddr::new(address, upstream.port);
                addresses.into_iter().map(|address| Dialable::original(to(address), transport)).collect()
            }
        },
    }
}

impl<'t> Dialable<'t> {
    /// What the choice among endpoints needs.
    pub(crate) const fn spec(&self) -> Spec {
        Spec { address: self.address, priority: self.priority, weight: self.weight }
    }

    const fn original(address: SocketAddr, transport: &'t Transport) -> Self {
        Self { address, transport, takes_hbone: false, priority: 0, weight: 1, name: None }
    }
}

fn of<'t>(
    target: &OutboundTarget,
    endpoint: &'t Arc<Endpoint>,
    names: &impl Addresses,
) -> impl Iterator<Item = Dialable<'t>> {
    let port = if endpoint.port == EVERY_PORT { target.port() } else { endpoint.port };
    let (literal, name) = match &endpoint.address {
        EndpointAddress::Ip(address) => (Some(*address), None),
        EndpointAddress::Name(name) => (None, Some(name)),
    };
    let resolved: Vec<_> = name.map(|name| names.of(name).to_vec()).unwrap_or_default();
    literal.into_iter().chain(resolved).map(move |address| Dialable {
        address: SocketAddr::new(address, port),
        transport: &endpoint.transport,
        takes_hbone: endpoint.takes_hbone,
        priority: endpoint.priority,
        weight: endpoint.weight,
        name,
    })
}

/// The first of them for which this holds, without making the others.
pub(crate) fn find<'t>(
    target: &OutboundTarget,
    found: &Found<'t>,
    names: &impl Addresses,
    is_meant: impl Fn(&Dialable<'t>) -> bool,
) -> Option<Dialable<'t>> {
    match found.choice {
        Choice::Any(endpoints) => endpoints.iter().flat_map(|endpoint| of(target, endpoint, names)).find(is_meant),
        Choice::One(_) | Choice::Original(_) => dialable(target, found, names).into_iter().find(is_meant),
    }
}

/// The names that [`dialable`] needs the addresses of.
pub(crate) fn names_to_resolve<'t>(target: &'t OutboundTarget, found: &Found<'t>) -> BTreeSet<&'t str> {
    let of_endpoint = |endpoint: &'t Arc<Endpoint>| match &endpoint.address {
        EndpointAddress::Ip(_) => None,
        EndpointAddress::Name(name) => Some(&**name),
    };
    let host = match (found.choice, target) {
        (Choice::Original(_), OutboundTarget::Configured(upstream)) => Some(&*upstream.host),
        _ => None,
    };
    let names = found.choice.endpoints().iter().filter_map(of_endpoint).chain(host);
    names.filter(|name| name.parse::<IpAddr>().is_err()).collect()
}

/// Whether the address is the workload's own, and captured: a connection to it does not leave this host, and bypasses the redirect
/// to the sidecar's inbound listener. The app itself answers, in plaintext.
pub(crate) fn is_own_app(state: &ProxyState, endpoint: &Dialable<'_>) -> bool {
    // Whether the address is ours costs system calls; the identity says in most cases that it is not.
    let own = &state.settings.own_id;
    matches!(endpoint.transport, Transport::Mtls { identities: Ok(ids), .. } if ids.contains(own))
        && state.settings.inbound.transparent.is_some()
        && is_own_address(endpoint.address).unwrap_or(false)
}
