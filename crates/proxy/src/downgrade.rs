//! Destinations that were reached over mTLS since the start, and would be sent plaintext now.
//!
//! A change of policy or of the service directory can turn mTLS into plaintext for a whole service. That may be meant (a port
//! that is set to DISABLE), or the mistake or the attack that a mesh is there to prevent. So a warning is logged, and
//! `outbound.downgrade: refuse` refuses it until the sidecar is restarted.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use portcullis_config::Downgrade;
use portcullis_telemetry::Ending;

use crate::outcome::Reason;

/// How many destinations are remembered. What comes later is not: a directory this large does not fit a sidecar.
const MAX_DESTINATIONS: usize = 65_536;

/// What is remembered of a destination.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum MtlsDestination {
    /// The host of a service and its port: for a service of which no endpoint is secured any more.
    Service(Arc<str>, u16),
    /// One endpoint of it, by address: a service may have endpoints with and without a sidecar.
    Endpoint(Arc<str>, SocketAddr),
    /// An address that was dialled, by the app or by the proxy: for those that no service claims any more.
    Address(SocketAddr),
}

/// The destinations that were reached over mTLS.
#[derive(Default)]
pub(crate) struct SeenOverMtls {
    /// With whether it is known already that it gets plaintext now.
    peers: RwLock<HashMap<MtlsDestination, AtomicBool>>,
}

impl SeenOverMtls {
    /// The destination was reached over mTLS.
    pub(crate) fn record(&self, peer: MtlsDestination) {
        if let Some(downgraded) = self.peers.read().unwrap_or_else(PoisonError::into_inner).get(&peer) {
            // Not written without need: all connections share it.
            if downgraded.load(Ordering::Relaxed) {
                downgraded.store(false, Ordering::Relaxed);
            }
            return;
        }
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        if peers.len() < MAX_DESTINATIONS {
            peers.entry(peer).or_default();
        }
    }

    /// The destination is to be sent plaintext because of `why`. Warns once if it was reached over mTLS before, by the first of its
    /// names that was, and is counted by `count` for each connection.
    ///
    /// # Errors
    /// If it was, and that is to be refused.
    pub(crate) fn check(
        &self,
        names: &[MtlsDestination],
        why: &'static str,
        downgrade: Downgrade,
        count: impl FnOnce(&'static str),
    ) -> Result<(), Ending> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        let Some((peer, told)) = names.iter().find_map(|peer| Some((peer, peers.get(peer)?))) else { return Ok(()) };
        let action = match downgrade {
            Downgrade::Warn => "warn",
            Downgrade::Refuse => "refuse",
        };
        count(action);
        if !told.swap(true, Ordering::Relaxed) {
            let destination = match peer {
                MtlsDestination::Service(host, port) => format!("{host}:{port}"),
                MtlsDestination::Endpoint(host, address) => format!("{host} at {address}"),
                MtlsDestination::Address(address) => address.to_string(),
            };
            tracing::warn!(
                destination,
                why,
                action,
                "a destination that was reached over mTLS would be sent plaintext now; see outbound.downgrade"
            );
        }
        match downgrade {
            Downgrade::Warn => Ok(()),
            Downgrade::Refuse => Err(Ending::new(Reason::Downgrade, Some(why.to_owned()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn plaintext_is_refused_only_after_mtls_and_only_if_configured() {
        let seen = SeenOverMtls::default();
        let cart = MtlsDestination::Service("cart.shop.svc.cluster.local".into(), 8080);
        let counted = RefCell::new(Vec::new());
        let check = |peer: &MtlsDestination, downgrade| {
            let checked = seen.check(std::slice::from_ref(peer), "mode_disable", downgrade, |action| {
                counted.borrow_mut().push(action)
            });
            checked.map_err(|ending| ending.reason)
        };
        assert_eq!(check(&cart, Downgrade::Refuse), Ok(()), "it never was over mTLS");
        seen.record(cart.clone());
        assert_eq!(check(&cart, Downgrade::Warn), Ok(()));
        assert_eq!(check(&cart, Downgrade::Refuse), Err("downgrade"));
        let other_port = MtlsDestination::Service("cart.shop.svc.cluster.local".into(), 8081);
        assert_eq!(check(&other_port, Downgrade::Refuse), Ok(()));
        assert_eq!(check(&MtlsDestination::Address("10.0.0.1:8080".parse().unwrap()), Downgrade::Refuse), Ok(()));
        let endpoint =
            MtlsDestination::Endpoint("cart.shop.svc.cluster.local".into(), "10.0.0.1:8080".parse().unwrap());
        let both =
            seen.check(&[endpoint, cart], "no_sidecar", Downgrade::Warn, |action| counted.borrow_mut().push(action));
        assert!(both.is_ok());
        assert_eq!(counted.into_inner(), ["warn", "refuse", "warn"], "once for each connection");
    }
}
