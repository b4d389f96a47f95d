//! Where an outbound connection goes: routes first, then the service directory, then `outbound.trafficPolicy`.
//!
//! Routes and directory name hosts. An address that matches nothing waits until all names have been looked up again, *before*
//! it counts as unknown: a peer that restarted with a new address must not be sent plaintext. While a name that is reached over
//! mTLS cannot be looked up, an unknown address may belong to it, and is refused on its ports.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portcullis_dns::Names;
use portcullis_policy::directory::Lookup;
use portcullis_telemetry::Ending;

use crate::outcome::Reason;
use crate::resolved_route::ResolvedRoute;
use crate::routes::{RouteLookup, Routes};
use crate::services::ServiceTable;
use crate::upstream::{Reach, Upstream};

/// What a connection is for: what the app dialled, or what the configuration names.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// The original destination of a captured connection.
    Captured(SocketAddr),
    /// The destination of a listener.
    Configured(Arc<Upstream>),
}

impl Wanted {
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

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Captured(address) => write!(f, "{address}"),
            Self::Configured(upstream) => write!(f, "{}:{}", upstream.host, upstream.port),
        }
    }
}

impl Destinations {
    /// What the directory says now, without waiting for a name.
    pub(crate) fn in_directory<'t>(&self, wanted: &Wanted, table: &'t ServiceTable) -> Lookup<'t> {
        match wanted {
            Wanted::Captured(address) => {
                let names = self.names.table();
                table.directory().find(*address, names.names_of(address.ip()))
            }
            Wanted::Configured(upstream) => match &upstream.reach {
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
    pub(crate) async fn find(&self, wanted: &Wanted) -> Result<Destination, Ending> {
        let address = match wanted {
            Wanted::Captured(address) => *address,
            Wanted::Configured(upstream) => {
                return match &upstream.reach {
                    Reach::Route(route) => Ok(Destination::Fixed(Arc::clone(route))),
                    Reach::Directory { .. } => self.service(wanted)?.ok_or_else(|| no_service(wanted, "host")),
                };
            }
        };
        if let Some(found) = self.known(wanted, address)? {
            return Ok(found);
        }
        self.names.refresh_all(address.ip()).await;
        if let Some(found) = self.known(wanted, address)? {
            return Ok(found);
        }
        let Some(route) = self.routes.otherwise() else {
            return Err(Ending::new(Reason::NoRoute, Some(address.to_string())));
        };
        let names = self.names.table();
        let failed = |name: &str| names.is_failed(name);
        if self.routes.may_belong_to_failed_host(address.port(), &failed)
            || self.services.load().directory().may_own(address.port(), &failed)
        {
            return Err(Ending::new(Reason::NameUnresolved, Some(address.to_string())));
        }
        Ok(Destination::Unknown(Arc::clone(route)))
    }

    /// What a route or the directory says of the original destination.
    fn known(&self, wanted: &Wanted, address: SocketAddr) -> Result<Option<Destination>, Ending> {
        let matching = self.routes.matching(address, &self.names.table());
        match matching {
            Some(RouteLookup::Found(route)) => Ok(Some(Destination::Fixed(route))),
            Some(RouteLookup::Conflict) => Err(Ending::new(Reason::RouteConflict, Some(address.to_string()))),
            None => self.service(wanted),
        }
    }

    fn service(&self, wanted: &Wanted) -> Result<Option<Destination>, Ending> {
        let table = self.services.load_full();
        let found = match self.in_directory(wanted, &table) {
            Lookup::Found(_) => true,
            Lookup::Unknown => false,
            Lookup::Conflict(entries) => {
                let error = format!("{wanted}: {}", entries.join(", "));
                return Err(Ending::new(Reason::ServiceConflict, Some(error)));
            }
            Lookup::NoPort => return Err(no_service(wanted, "port")),
            Lookup::NoSubset => return Err(no_service(wanted, "subset")),
        };
        Ok(found.then_some(Destination::Service(table)))
    }
}

fn no_service(wanted: &Wanted, missing: &str) -> Ending {
    Ending::new(Reason::NoService, Some(format!("{wanted}: there is no such {missing}")))
}

#[cfg(test)]
mod tests;
