//! Who is who in Istio's labels.
//!
//! By convention (the product's documentation says so): a peer's namespace and service account, which its SPIFFE ID
//! carries, stand for its namespace and its workload, service and app. What is not known is `unknown`, never absent.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use portcullis_identity::SpiffeId;

const UNKNOWN: &str = "unknown";
/// Peers beyond the limit of [`crate::tcp`].
const OTHER: &str = "other";
/// Istio's revision if none is configured.
const LATEST: &str = "latest";

/// The workload that this sidecar serves.
#[derive(Clone, Debug)]
pub struct LocalWorkload {
    /// Its verified identity.
    pub id: SpiffeId,
    /// `workload.name`.
    pub name: String,
    /// `workload.namespace`.
    pub namespace: String,
    /// `workload.labels`.
    pub labels: BTreeMap<String, String>,
    /// The service that clients call it by.
    pub service: Service,
}

/// A service by its names.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    namespace: String,
    /// Made from the names, once: every connection carries it.
    host: Arc<str>,
}

impl PartialEq for Service {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.namespace == other.namespace
    }
}

impl Eq for Service {}

impl Hash for Service {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.namespace.hash(state);
    }
}

impl Service {
    /// A service of a namespace.
    #[must_use]
    pub fn new(name: &str, namespace: &str) -> Self {
        let host = match namespace {
            UNKNOWN => name.into(),
            namespace => format!("{name}.{namespace}.svc.cluster.local").into(),
        };
        Self { name: name.to_owned(), namespace: namespace.to_owned(), host }
    }

    /// A destination whose route has a service name without a namespace.
    #[must_use]
    pub fn without_namespace(name: &str) -> Self {
        Self::new(name, UNKNOWN)
    }

    fn unknown() -> Self {
        Self::without_namespace(UNKNOWN)
    }

    /// Its fully qualified name, such as `cart.shop.svc.cluster.local`.
    #[must_use]
    pub const fn host(&self) -> &Arc<str> {
        &self.host
    }
}

/// The authenticated peer of a connection, as metrics know it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Principal {
    /// The peer is not authenticated.
    Unknown,
    /// A peer with a series of its own.
    Id(SpiffeId),
    /// A peer beyond the limit of [`crate::tcp`].
    Other,
}

/// Values of the labels of one end.
struct End {
    workload: String,
    namespace: String,
    canonical_service: String,
    canonical_revision: String,
    app: String,
    version: String,
    principal: String,
}

impl End {
    fn all(word: &str) -> Self {
        let word = || word.to_owned();
        Self {
            workload: word(),
            namespace: word(),
            canonical_service: word(),
            canonical_revision: word(),
            app: word(),
            version: word(),
            principal: word(),
        }
    }

    fn own(own: &LocalWorkload, authenticated: bool) -> Self {
        let label = |names: &[&str], otherwise: &str| {
            let found = names.iter().find_map(|name| own.labels.get(*name)).filter(|value| !value.is_empty());
            found.map_or_else(|| otherwise.to_owned(), Clone::clone)
        };
        Self {
            workload: own.name.clone(),
            namespace: own.namespace.clone(),
            canonical_service: label(
                &["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"],
                own.name.as_str(),
            ),
            canonical_revision: label(
                &["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"],
                LATEST,
            ),
            app: label(&["app", "app.kubernetes.io/name"], own.name.as_str()),
            version: label(&["version", "app.kubernetes.io/version"], LATEST),
            principal: if authenticated { own.id.to_string() } else { UNKNOWN.to_owned() },
        }
    }

    fn peer(principal: &Principal) -> Self {
        let id = match principal {
            Principal::Unknown => return Self::all(UNKNOWN),
            Principal::Other => return Self::all(OTHER),
            Principal::Id(id) => id,
        };
        let Some(istio) = id.istio() else {
            return Self { principal: id.to_string(), ..Self::all(UNKNOWN) };
        };
        let account = || istio.service_account.to_owned();
        Self {
            workload: account(),
            namespace: istio.namespace.to_owned(),
            canonical_service: account(),
            canonical_revision: LATEST.to_owned(),
            app: account(),
            version: LATEST.to_owned(),
            principal: id.to_string(),
        }
    }
}

/// Names of the labels of the four Istio TCP metrics, as ztunnel has them, without `response_flags`.
pub(crate) const LABELS: [&str; 22] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "connection_security_policy",
];

/// Kiali drops a series whose cluster is unknown while its namespace is known; this is the name it expects by default.
const CLUSTER: &str = "Kubernetes";

/// What one edge of the graph is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct EdgeKey {
    pub(crate) direction: crate::Direction,
    pub(crate) peer: Principal,
    /// The destination's service; inbound it is always our own.
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) mutual_tls: bool,
}

/// The values of [`LABELS`].
pub(crate) fn values(own: &LocalWorkload, key: &EdgeKey) -> [String; 22] {
    let inbound = key.direction == crate::Direction::Inbound;
    let (ours, theirs) = (End::own(own, key.mutual_tls), End::peer(&key.peer));
    let (source, destination) = if inbound { (theirs, ours) } else { (ours, theirs) };
    let service = match &key.service {
        _ if inbound => own.service.clone(),
        Some(service) => service.as_ref().clone(),
        None => Service::unknown(),
    };
    let security = match (key.mutual_tls, inbound) {
        (true, _) => "mutual_tls",
        // Envoy's words: a server knows that there was none, a client does not say.
        (false, true) => "none",
        (false, false) => UNKNOWN,
    };
    [
        key.direction.reporter().to_owned(),
        source.workload,
        source.canonical_service,
        source.canonical_revision,
        source.namespace,
        source.principal,
        source.app,
        source.version,
        CLUSTER.to_owned(),
        service.host().to_string(),
        service.namespace,
        service.name,
        destination.workload,
        destination.canonical_service,
        destination.canonical_revision,
        destination.namespace,
        destination.principal,
        destination.app,
        destination.version,
        CLUSTER.to_owned(),
        "tcp".to_owned(),
        security.to_owned(),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::connection::Direction;

    pub(crate) fn own() -> LocalWorkload {
        LocalWorkload {
            id: SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap(),
            name: "cart".to_owned(),
            namespace: "shop".to_owned(),
            labels: BTreeMap::from([("app".to_owned(), "cart-app".to_owned())]),
            service: Service::new("cart", "shop"),
        }
    }

    fn get(values: &[String; 22], name: &str) -> String {
        LABELS.iter().zip(values).find(|(label, _)| **label == name).unwrap().1.clone()
    }

    #[test]
    fn no_label_of_an_mtls_edge_is_unknown() {
        let peer = Principal::Id(SpiffeId::parse("spiffe://cluster.local/ns/front/sa/web").unwrap());
        let service = Some(Arc::new(Service::new("web", "front")));
        for direction in [Direction::Inbound, Direction::Outbound] {
            let key = EdgeKey { direction, peer: peer.clone(), service: service.clone(), mutual_tls: true };
            let values = values(&own(), &key);
            assert!(values.iter().all(|value| value != UNKNOWN && !value.is_empty()), "{values:?}");
            let (ours, theirs) =
                if direction == Direction::Inbound { ("destination", "source") } else { ("source", "destination") };
            for (end, suffix, expected) in [
                (theirs, "workload", "web"),
                (theirs, "workload_namespace", "front"),
                (theirs, "canonical_service", "web"),
                (theirs, "canonical_revision", "latest"),
                (theirs, "principal", "spiffe://cluster.local/ns/front/sa/web"),
                (ours, "workload", "cart"),
                (ours, "app", "cart-app"),
                (ours, "canonical_service", "cart-app"),
                (ours, "principal", "spiffe://cluster.local/ns/shop/sa/cart"),
                (ours, "cluster", "Kubernetes"),
            ] {
                assert_eq!(get(&values, &format!("{end}_{suffix}")), expected, "{direction:?} {end}_{suffix}");
            }
            let host = if direction == Direction::Inbound { "cart.shop" } else { "web.front" };
            assert_eq!(get(&values, "destination_service"), format!("{host}.svc.cluster.local"));
            assert_eq!(get(&values, "connection_security_policy"), "mutual_tls");
        }
    }

    #[test]
    fn a_client_without_identity_is_unknown_and_so_is_our_principal() {
        let key = EdgeKey { direction: Direction::Inbound, peer: Principal::Unknown, service: None, mutual_tls: false };
        let values = values(&own(), &key);
        assert_eq!(get(&values, "source_workload"), UNKNOWN);
        assert_eq!(get(&values, "source_principal"), UNKNOWN);
        assert_eq!(get(&values, "destination_principal"), UNKNOWN);
        assert_eq!(get(&values, "destination_workload"), "cart");
        assert_eq!(get(&values, "connection_security_policy"), "none");
    }

    #[test]
    fn an_id_that_is_not_istios_is_a_principal_without_a_workload() {
        let peer = Principal::Id(SpiffeId::parse("spiffe://partner.example/billing").unwrap());
        let key = EdgeKey { direction: Direction::Inbound, peer, service: None, mutual_tls: true };
        let values = values(&own(), &key);
        assert_eq!(get(&values, "source_principal"), "spiffe://partner.example/billing");
        assert_eq!(get(&values, "source_workload"), UNKNOWN);
    }
}
