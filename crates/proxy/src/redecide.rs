//! Whether an open outbound connection may go on after a change of policy or of the service directory.

use std::net::SocketAddr;

use portcullis_config::Otherwise;
use portcullis_policy::directory::{Lookup, Transport};
use portcullis_telemetry::{ConnRecord, Ending};

use crate::balancer::ActiveGuard;
use crate::destination::Wanted;
use crate::downgrade::Peer;
use crate::endpoints::{self, Dialable};
use crate::outcome::Reason;
use crate::relay::Closing;
use crate::state::ProxyState;

/// How the destination was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reached {
    /// In plaintext.
    Plaintext,
    /// In plaintext, since it is the app of this sidecar.
    OwnApp,
    /// Over mTLS with a verified mesh peer.
    Mtls,
    /// Over TLS with a verified server outside the mesh.
    Originated,
}

/// What a connection was decided with.
pub(crate) struct Basis {
    wanted: Wanted,
    /// The address that was dialled.
    address: SocketAddr,
    /// The service, if there was one.
    service: Option<Peer>,
    reached: Reached,
    /// Counts the connection among those to its endpoint.
    _active: Option<ActiveGuard>,
}

impl Basis {
    /// To an address that nothing names.
    pub(crate) const fn unknown(wanted: Wanted, address: SocketAddr) -> Self {
        Self { wanted, address, service: None, reached: Reached::Plaintext, _active: None }
    }

    /// To an endpoint of a service.
    pub(crate) fn service(
        wanted: Wanted,
        address: SocketAddr,
        service: &Peer,
        reached: Reached,
        active: ActiveGuard,
    ) -> Self {
        Self { wanted, address, service: Some(service.clone()), reached, _active: Some(active) }
    }

    /// Asks whether a new connection like this one would be made, and made in the same way.
    pub(crate) fn redecide(&self, state: &ProxyState, record: &ConnRecord) -> Option<Closing> {
        let table = state.destinations.services.load();
        let refused = |why: &str| Some(Closing::Now(Ending::new(Reason::PolicyChanged, Some(why.to_owned()))));
        let transport = match state.destinations.in_directory(&self.wanted, &table) {
            Lookup::Found(found) => {
                // What was an unknown address may be that of a service now, whose endpoints have others.
                let is_meant = |it: &Dialable<'_>| self.service.is_none() || it.address == self.address;
                let names = state.destinations.names.table();
                endpoints::find(&self.wanted, &found, &**names, is_meant).map(|it| it.transport)
            }
            Lookup::Conflict(_) => return refused("two services claim the destination now"),
            Lookup::NoPort | Lookup::NoSubset => return refused("the service has no such port now"),
            Lookup::Unknown => {
                let is_refused = match &self.wanted {
                    Wanted::Captured(_) => state.settings.outbound.otherwise == Otherwise::Refuse,
                    Wanted::Configured(_) => true,
                };
                // A name may have moved to other addresses; the service is still there then, and so may the connection be.
                let is_gone = match &self.service {
                    Some(Peer::Service(host, port)) => {
                        matches!(table.directory().by_host(host, *port, None), Lookup::Unknown | Lookup::NoPort)
                    }
                    _ => true,
                };
                return if is_refused && is_gone { refused("no service has the destination now") } else { None };
            }
        };
        // An endpoint that is gone ends its connections itself.
        match (self.reached, transport?) {
            (Reached::OwnApp, _)
            // What is more than the directory asks for may stay.
            | (Reached::Plaintext | Reached::Mtls | Reached::Originated, Transport::Plaintext(_))
            | (Reached::Originated, Transport::Originate(_)) => None,
            (Reached::Mtls, Transport::Mtls { identities, .. }) => {
                let expected = identities.as_ref().is_ok_and(|ids| record.peer.as_ref().is_some_and(|id| ids.contains(id)));
                if expected { None } else { refused("the service has other identities now") }
            }
            (Reached::Plaintext | Reached::Originated, Transport::Mtls { .. })
            | (Reached::Plaintext | Reached::Mtls, Transport::Originate(_)) => {
                let why = "the destination is reached in another way now";
                Some(Closing::BetweenAnswers(Ending::new(Reason::PolicyChanged, Some(why.to_owned()))))
            }
        }
    }
}
