//! What the addresses of peers without an identity are called, for reports: a service of the directory or a configured name, otherwise
//! the name of reverse DNS. In the background, never on the path of a connection.
//!
//! Whoever runs a DNS server for an address chooses its name, so nothing is decided by it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portcullis_dns::{Names, Resolver};
use portcullis_ledger::Ledger;
use portcullis_policy::directory::{Directory, EndpointAddress};
use portcullis_proxy::ServiceTable;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// How often new addresses are looked for.
const INTERVAL: Duration = Duration::from_secs(2);
/// Addresses that are asked for in one round, at once.
const AT_ONCE: usize = 4;
/// An address is asked for again after this time: it may belong to somebody else by then.
const AGAIN: Duration = Duration::from_secs(3600);
/// The same, if nobody answered.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(60);

/// Finds names.
pub(super) struct ClientNames {
    pub(super) ledger: Ledger,
    pub(super) services: Arc<ArcSwap<ServiceTable>>,
    pub(super) names: Arc<Names>,
    /// `None`: nobody is asked for the name of an address.
    pub(super) resolver: Option<Resolver>,
}

impl ClientNames {
    /// Never returns.
    pub(super) async fn run(self) {
        let mut asked: HashMap<IpAddr, Instant> = HashMap::new();
        let mut changed = self.names.changed();
        let mut directory = self.services.load().shared_directory();
        let mut local = by_endpoint(&directory);
        loop {
            sleep(INTERVAL).await;
            let latest = self.services.load().shared_directory();
            if !Arc::ptr_eq(&latest, &directory) || changed.has_changed().unwrap_or(false) {
                changed.mark_unchanged();
                local = by_endpoint(&latest);
                directory = latest;
                // All are named anew.
                asked.clear();
            }
            let addresses = self.ledger.nameless();
            let now = Instant::now();
            asked.retain(|_, again| *again > now);
            let (mut found, mut unknown) = (HashMap::new(), Vec::new());
            for address in addresses {
                if asked.contains_key(&address) {
                    continue;
                }
                if let Some(name) = self.local_name(&local, address) {
                    found.insert(address, name);
                    asked.insert(address, now + AGAIN);
                } else if unknown.len() < AT_ONCE {
                    unknown.push(address);
                }
            }
            self.ask(unknown, &mut found, &mut asked).await;
            if !found.is_empty() {
                self.ledger.name(&found);
            }
        }
    }

    fn local_name(&self, local: &HashMap<IpAddr, Arc<str>>, address: IpAddr) -> Option<Arc<str>> {
        let of_dns = || self.names.table().names_of(address).first().cloned();
        local.get(&address).cloned().or_else(of_dns)
    }

    /// Asks reverse DNS. Each look-up has its deadline.
    async fn ask(
        &self,
        addresses: Vec<IpAddr>,
        found: &mut HashMap<IpAddr, Arc<str>>,
        asked: &mut HashMap<IpAddr, Instant>,
    ) {
        let Some(resolver) = &self.resolver else { return };
        let mut lookups = JoinSet::new();
        for address in addresses {
            let resolver = resolver.clone();
            asked.insert(address, Instant::now() + AGAIN_AFTER_FAILURE);
            lookups.spawn(async move { (address, resolver.name_of(address).await) });
        }
        while let Some(done) = lookups.join_next().await {
            match done {
                Ok((address, Ok(name))) => {
                    asked.insert(address, Instant::now() + AGAIN);
                    found.extend(name.map(|name| (address, Arc::from(name))));
                }
                Ok((address, Err(error))) => tracing::debug!(%address, %error, "no name for an address"),
                Err(_panicked) => {}
            }
        }
    }
}

/// The service that each declared address is an endpoint of; the first one if there are several.
fn by_endpoint(directory: &Directory) -> HashMap<IpAddr, Arc<str>> {
    let mut names = HashMap::new();
    for service in directory.services() {
        let label: Arc<str> = service.label().into();
        for endpoint in service.ports.iter().flat_map(|port| &port.endpoints) {
            if let EndpointAddress::Ip(address) = endpoint.address {
                names.entry(address.to_canonical()).or_insert_with(|| Arc::clone(&label));
            }
        }
    }
    names
}
