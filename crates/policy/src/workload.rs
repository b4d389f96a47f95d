//! The workload that policies are resolved for.

use std::collections::BTreeMap;

use crate::mode::Mode;

/// The workload that the proxy serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    /// Its name, for logs and metrics.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account, a part of its SPIFFE ID.
    pub service_account: String,
    /// Its labels: the pod's, not a Service's.
    pub labels: BTreeMap<String, String>,
}

/// Settings of the whole mesh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MeshSettings {
    /// Where a policy without a selector is mesh-wide.
    pub root_namespace: String,
    /// The mode where no policy sets one; Istio's is PERMISSIVE.
    pub default_mode: Mode,
    /// The names of the mesh's trust domain: its own first, then its aliases. AuthorizationPolicies that name one of them mean
    /// all of them.
    pub trust_domains: Vec<String>,
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            root_namespace: "istio-system".to_owned(),
            default_mode: Mode::Permissive,
            trust_domains: vec!["cluster.local".to_owned()],
        }
    }
}
