//! How to reach a destination: made once, and shared by all connections that take the route.

use std::sync::Arc;

use portcullis_config::RouteMode;
use portcullis_telemetry::Service;
use portcullis_tls::client::Sni;

/// The mode of a route, and what the configuration says of its destination.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct ResolvedRoute {
    pub(crate) mode: RouteMode,
    /// For metrics: the configured name, or by convention the service account of the first expected identity.
    pub(crate) service: Option<Arc<Service>>,
    /// Istio's SNI after the port, if the configuration names the service.
    sni_suffix: Option<String>,
}

impl ResolvedRoute {
    pub(crate) fn new(mode: RouteMode, name: Option<&str>) -> Arc<Self> {
        let first = match &mode {
            RouteMode::Mtls(expected) | RouteMode::Hbone(expected) => expected.iter().next().and_then(|id| id.istio()),
            RouteMode::Plaintext => None,
        };
        let service = match (name, first) {
            (Some(name), Some(id)) => Some(Service::new(name, id.namespace)),
            (None, Some(id)) => Some(Service::new(id.service_account, id.namespace)),
            (Some(name), None) => Some(Service::without_namespace(name)),
            (None, None) => None,
        };
        let sni_suffix = name.zip(first).map(|(name, id)| format!("_._.{name}.{}.svc.cluster.local", id.namespace));
        Arc::new(Self { service: service.map(Arc::new), sni_suffix, mode })
    }

    /// `outbound_.PORT_._.SERVICE.NAMESPACE.svc.cluster.local`, Istio's form, for routers on the way.
    pub(crate) fn sni(&self, port: u16) -> Option<Sni> {
        let suffix = self.sni_suffix.as_deref()?;
        Sni::parse(&format!("outbound_.{port}{suffix}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::{ExpectedIds, SpiffeId};

    use super::*;

    #[test]
    fn the_service_is_named_or_follows_from_the_identity() {
        let mtls = |id: &str| RouteMode::Mtls(ExpectedIds::new([SpiffeId::parse(id).unwrap()]).unwrap());
        let istio = "spiffe://cluster.local/ns/shop/sa/cart-sa";
        let named = ResolvedRoute::new(mtls(istio), Some("cart"));
        assert_eq!(named.service.as_deref(), Some(&Service::new("cart", "shop")));
        assert_eq!(named.sni(80), Sni::parse("outbound_.80_._.cart.shop.svc.cluster.local").ok());
        let unnamed = ResolvedRoute::new(mtls(istio), None);
        assert_eq!(unnamed.service.as_deref(), Some(&Service::new("cart-sa", "shop")));
        assert_eq!(unnamed.sni(80), None);
        assert_eq!(ResolvedRoute::new(RouteMode::Plaintext, None).service, None);
        let foreign = ResolvedRoute::new(mtls("spiffe://partner.example/billing"), Some("billing"));
        assert_eq!(foreign.service.as_deref(), Some(&Service::without_namespace("billing")));
    }
}
