//! Where an outbound connection goes: routes first, then the service directory, then `outbound.trafficPolicy`.
//!
//! Routes and directory name hosts. An address that matches nothing waits until all names have been looked up again, *before*
//! it counts as unknown: a peer that restarted with a new address must not be sent plaintext. While a name that is reached over
//! mTLS cannot be looked up, an unknown address may belong to it, and is refused on its ports.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_dns::{Names, Table};
use portcullis_policy::directory::{Endpoint, Lookup, PlaintextReason, Transport};
use portcullis_telemetry::Ending;

use crate::outcome::Reason;
use crate::resolved_route::ResolvedRoute;
use crate::routes::{RouteLookup, Routes};
use crate::services::ServiceTable;
use crate::upstream::{Reach, Upstream};

/// What an outbound connection asks for: the address that the app dialled, or an upstream of the configuration.
#[derive(Clone, Debug)]
pub(crate) enum OutboundTarget {
    /// The original destination of a captured connection.
    Captured(SocketAddr),
    /// The destination of a listener.
    Configured(Arc<Upstream>),
}

impl OutboundTarget {
    /// The port that was dialled, or is configured.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Captured(address) => address.port(),
            Self::Configured(upstream) => upstream.port,
        }
    }
}

/// What destinations are looked up in.
pub(crate) struct Destinations {
    pub(crate) routes: Routes,
    /// A reload swaps it.
    pub(crate) services: Arc<ArcSwap<ServiceTable>>,
    /// Of routes and of the directory.
    pub(crate) names: Arc<Names>,
}

/// Where a connection goes, and how.
pub(crate) enum Destination {
    /// As the configuration says.
    Fixed(Arc<ResolvedRoute>),
    /// Plaintext to an unknown address, because `outbound.trafficPolicy` is `ALLOW_ANY`.
    Unknown(Arc<ResolvedRoute>),
    /// To an endpoint of a service. It is looked up in this table again.
    Service(Arc<ServiceTable>),
}

impl fmt::Display for OutboundTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured(address) => write!(f, "{address}"),
            Self::Configured(upstream) => write!(f, "{}:{}", upstream.host, upstream.port),
        }
    }
}

impl Destinations {
    /// What the directory says now, without waiting for a name.
    pub(crate) fn in_directory<'t>(&self, target: &OutboundTarget, table: &'t ServiceTable) -> Lookup<'t> {
        self.in_directory_by(target, table, &self.names.table())
    }

    fn in_directory_by<'t>(&self, target: &OutboundTarget, table: &'t ServiceTable, names: &Table) -> Lookup<'t> {
        match target {
            OutboundTarget::Captured(address) => table.directory().find(*address, names.names_of(address.ip())),
            OutboundTarget::Configured(upstream) => match &upstream.reach {
                Reach::Route(_) => Lookup::Unknown,
                Reach::Directory { subset } => {
                    table.directory().by_host(&upstream.host, upstream.port, subset.as_deref())
                }
            },
        }
    }

    /// Finds the destination.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn find(&self, target: &OutboundTarget) -> Result<Destination, Ending> {
        let address = match target {
            OutboundTarget::Captured(address) => *address,
            OutboundTarget::Configured(upstream) => {
                return match &upstream.reach {
                    Reach::Route(route) => Ok(Destination::Fixed(Arc::clone(route))),
                    Reach::Directory { .. } => {
                        self.service(target, &self.names.table())?.ok_or_else(|| no_service(target, "host"))
                    }
                };
            }
        };
        if let Some(found) = self.known(target, address, &self.names.table())?
            && !self.has_moved(target, address, &found).await?
        {
            return Ok(found);
        }
        self.names.refresh_all(address.ip()).await;
        // One state of the names for what is known and for what fails: a name that is resolved in between would be neither.
        let names = self.names.table();
        if let Some(found) = self.known(target, address, &names)? {
            if self.has_moved(target, address, &found).await? {
                let error = format!("{address} was that of a name a moment ago, and no name has it now");
                return Err(Ending::new(Reason::NameUnresolved, Some(error)));
            }
            return Ok(found);
        }
        let Some(route) = self.routes.otherwise() else {
            return Err(Ending::new(Reason::NoRoute, Some(address.to_string())));
        };
        let failed = |name: &str| names.is_failed(name);
        if self.routes.may_belong_to_failed_host(address.port(), &failed)
            || self.services.load().directory().may_own(address.port(), &failed)
        {
            return Err(Ending::new(Reason::NameUnresolved, Some(address.to_string())));
        }
        Ok(Destination::Unknown(Arc::clone(route)))
    }

    /// What a route or the directory says of the original destination.
    fn known(
        &self,
        target: &OutboundTarget,
        address: SocketAddr,
        names: &Table,
    ) -> Result<Option<Destination>, Ending> {
        match self.routes.matching(address, names) {
            Some(RouteLookup::Found(route)) => Ok(Some(Destination::Fixed(route))),
            Some(RouteLookup::Conflict) => Err(Ending::new(Reason::RouteConflict, Some(address.to_string()))),
            None => self.service(target, names),
        }
    }

    /// Whether an address that is known by a name is somebody else's by now. Asked only where plaintext would be the result: mTLS
    /// notices it by itself.
    async fn has_moved(
        &self,
        target: &OutboundTarget,
        address: SocketAddr,
        found: &Destination,
    ) -> Result<bool, Ending> {
        let Destination::Service(table) = found else { return Ok(false) };
        let names: Vec<Arc<str>> = {
            let known = self.names.table();
            let Lookup::Found(found) = self.in_directory_by(target, table, &known) else { return Ok(true) };
            let is_internal_plaintext = |endpoint: &Arc<Endpoint>| matches!(&endpoint.transport, Transport::Plaintext(reason) if *reason != PlaintextReason::External);
            if !found.choice.endpoints().iter().any(is_internal_plaintext) {
                return Ok(false);
            }
            known.names_of(address.ip()).to_vec()
        };
        for name in &names {
            match self.names.look_up_once(name).await {
                Ok(answer) if answer.addresses.contains(&address.ip().to_canonical()) => return Ok(false),
                Ok(_) => {}
                Err(error) => return Err(Ending::new(Reason::NameUnresolved, Some(error.to_string()))),
            }
        }
        Ok(!names.is_empty())
    }

    fn service(&self, target: &OutboundTarget, names: &Table) -> Result<Option<Destination>, Ending> {
        let table = self.services.load_full();
        let found = match self.in_directory_by(target, &table, names) {
            Lookup::Found(_) => true,
            Lookup::Unknown => false,
            Lookup::Conflict(entries) => {
                let error = format!("{target}: {}", entries.join(", "));
                return Err(Ending::new(Reason::ServiceConflict, Some(error)));
            }
            Lookup::NoPort => return Err(no_service(target, "port")),
            Lookup::NoSubset => return Err(no_service(target, "subset")),
        };
        Ok(found.then_some(Destination::Service(table)))
    }
}

fn no_service(target: &OutboundTarget, missing: &str) -> Ending {
    Ending::new(Reason::NoService, Some(format!("{target}: there is no such {missing}")))
}

#[cfg(test)]
mod tests;
