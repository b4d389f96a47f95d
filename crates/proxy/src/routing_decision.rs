//! Whether an open outbound connection may go on after a change of policy or of the service directory.

use std::net::SocketAddr;

use portcullis_config::Otherwise;
use portcullis_identity::SpiffeId;
use portcullis_policy::directory::{Lookup, Transport};
use portcullis_telemetry::{ConnRecord, Ending};
use portcullis_tls::PathSummary;

use crate::balancer::ActiveGuard;
use crate::destination::OutboundTarget;
use crate::downgrade::MtlsDestination;
use crate::endpoints::{self, Dialable};
use crate::outcome::Reason;
use crate::relay::{Closing, check_trust};
use crate::state::ProxyState;

/// How the destination was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum UpstreamTransport {
    /// In plaintext.
    Plaintext,
    /// In plaintext, since it is the app of this sidecar.
    OwnApp,
    /// Over mTLS with a verified mesh peer.
    Mtls,
    /// Over TLS with a verified server outside the mesh.
    Originated,
}

/// How an open connection was routed, so that the decision can be repeated after a change.
pub(crate) struct RoutingDecision {
    target: OutboundTarget,
    /// The address that was dialled.
    address: SocketAddr,
    /// The service, if there was one.
    service: Option<MtlsDestination>,
    via: UpstreamTransport,
    /// Counts the connection among those to its endpoint.
    _active: Option<ActiveGuard>,
}

impl RoutingDecision {
    /// To an address that nothing names.
    pub(crate) const fn unknown(target: OutboundTarget, address: SocketAddr) -> Self {
        Self { target, address, service: None, via: UpstreamTransport::Plaintext, _active: None }
    }

    /// To an endpoint of a service.
    pub(crate) fn service(
        target: OutboundTarget,
        address: SocketAddr,
        service: &MtlsDestination,
        via: UpstreamTransport,
        active: ActiveGuard,
    ) -> Self {
        Self { target, address, service: Some(service.clone()), via, _active: Some(active) }
    }

    /// Asks whether a new connection like this one would be made, and made in the same way.
    pub(crate) fn reevaluate(&self, state: &ProxyState, record: &ConnRecord) -> Option<Closing> {
        let table = state.destinations.services.load();
        let refused = |why: &str| Some(Closing::Now(Ending::new(Reason::PolicyChanged, Some(why.to_owned()))));
        let transport = match state.destinations.in_directory(&self.target, &table) {
            Lookup::Found(found) => {
                // What was an unknown address may be that of a service now, whose endpoints have others.
                let is_meant = |it: &Dialable<'_>| self.service.is_none() || it.address == self.address;
                let names = state.destinations.names.table();
                endpoints::find(&self.target, &found, &**names, is_meant).map(|it| it.transport)
            }
            Lookup::Conflict(_) => return refused("two services claim the destination now"),
            Lookup::NoPort | Lookup::NoSubset => return refused("the service has no such port now"),
            Lookup::Unknown => {
                let is_refused = match &self.target {
                    OutboundTarget::Captured(_) => state.settings.outbound.otherwise == Otherwise::Refuse,
                    OutboundTarget::Configured(_) => true,
                };
                // A name may have moved to other addresses; the service is still there then, and so may the connection be.
                let is_gone = match &self.service {
                    Some(MtlsDestination::Service(host, port)) => {
                        matches!(table.directory().by_host(host, *port, None), Lookup::Unknown | Lookup::NoPort)
                    }
                    _ => true,
                };
                return if is_refused && is_gone { refused("no service has the destination now") } else { None };
            }
        };
        // An endpoint that is gone ends its connections itself.
        match recheck(self.via, transport?, record.peer.as_ref()) {
            Recheck::Keep => None,
            Recheck::OtherIdentities => refused("the service has other identities now"),
            Recheck::OtherTransport => {
                let why = "the destination is reached in another way now";
                Some(Closing::BetweenAnswers(Ending::new(Reason::PolicyChanged, Some(why.to_owned()))))
            }
        }
    }
}

/// How a change ends an open connection to a server, if it does: by what it was decided with, or by what the trust in its peer rests
/// on.
pub(crate) fn after_change(
    state: &ProxyState,
    record: &ConnRecord,
    routing: Option<&RoutingDecision>,
    path: Option<&PathSummary>,
) -> Option<Closing> {
    let changed = routing.and_then(|routing| routing.reevaluate(state, record));
    changed.or_else(|| check_trust(state, record, path?).map(Closing::Now))
}

/// What a repeated decision means for an open connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Recheck {
    /// It stays: a new one would be made like it, or with less.
    Keep,
    /// Its peer is not expected any more.
    OtherIdentities,
    /// A new one would be made in another way, with more.
    OtherTransport,
}

/// Compares how the destination was reached (with a verified `peer` if over mTLS) with how it would be reached now.
fn recheck(via: UpstreamTransport, transport: &Transport, peer: Option<&SpiffeId>) -> Recheck {
    match (via, transport) {
        (UpstreamTransport::OwnApp, _)
        // What is more than the directory asks for may stay.
        | (UpstreamTransport::Plaintext | UpstreamTransport::Mtls | UpstreamTransport::Originated, Transport::Plaintext(_))
        | (UpstreamTransport::Originated, Transport::Originate(_)) => Recheck::Keep,
        (UpstreamTransport::Mtls, Transport::Mtls { identities, .. }) => {
            let expected = identities.as_ref().is_ok_and(|ids| peer.is_some_and(|id| ids.contains(id)));
            if expected { Recheck::Keep } else { Recheck::OtherIdentities }
        }
        (UpstreamTransport::Plaintext | UpstreamTransport::Originated, Transport::Mtls { .. })
        | (UpstreamTransport::Plaintext | UpstreamTransport::Mtls, Transport::Originate(_)) => Recheck::OtherTransport,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portcullis_identity::ExpectedIds;
    use portcullis_policy::directory::{
        MtlsReason, NoIdentities, OriginationMode, PlaintextReason, RuleRef, TlsOrigination,
    };

    use super::*;

    /// Every way in which a connection was made, against every way in which it would be made now.
    #[test]
    fn the_whole_table() {
        use Recheck::{Keep, OtherIdentities, OtherTransport};
        use UpstreamTransport::{Mtls, Originated, OwnApp, Plaintext};
        let id = |name: &str| SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap();
        let rule = RuleRef { label: "shop/cart".into(), file: "f".into(), line: 1 };
        let by = || MtlsReason::Rule { rule: rule.clone() };
        let mtls = |identities| Transport::Mtls { identities, sni: "s".into(), by: by() };
        let originate = TlsOrigination {
            mode: OriginationMode::Simple,
            ca: None,
            subject_alt_names: Vec::new(),
            sni: None,
            rule: rule.clone(),
        };
        let transports = [
            Transport::Plaintext(PlaintextReason::NoSidecar),
            mtls(Ok(ExpectedIds::new([id("cart")]).unwrap())),
            mtls(Ok(ExpectedIds::new([id("pay")]).unwrap())),
            mtls(Err(NoIdentities::Undeclared)),
            Transport::Originate(Arc::new(originate)),
        ];
        // Now: plaintext, mTLS with the same peer, with another, with nobody, TLS to a server outside.
        let rows = [
            (Plaintext, [Keep, OtherTransport, OtherTransport, OtherTransport, OtherTransport]),
            (OwnApp, [Keep; 5]),
            (Mtls, [Keep, Keep, OtherIdentities, OtherIdentities, OtherTransport]),
            (Originated, [Keep, OtherTransport, OtherTransport, OtherTransport, Keep]),
        ];
        for (via, expected) in rows {
            let peer = (via == Mtls).then(|| id("cart"));
            let found = transports.each_ref().map(|transport| recheck(via, transport, peer.as_ref()));
            assert_eq!(found, expected, "{via:?}");
        }
    }
}
