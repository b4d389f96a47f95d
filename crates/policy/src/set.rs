//! All policies of a mesh, as one value.

use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_istio::MeshConfig;

use crate::authorization::AuthorizationPolicy;
use crate::break_glass::BreakGlass;
use crate::directory::{DestinationRule, Location, ResourceMeta, ServiceEntry, WorkloadEntry};
use crate::resource::PeerAuthentication;

/// Every PeerAuthentication and AuthorizationPolicy of a mesh, in any order, the entries of its service directory, and the
/// certificate settings of its IstioOperators.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicySet {
    pub(crate) policies: Vec<PeerAuthentication>,
    pub(crate) break_glass: Vec<Arc<BreakGlass>>,
    /// The time at which break-glass is decided; none is in force without it.
    pub(crate) now: Option<i64>,
    pub(crate) authorization: Vec<Arc<AuthorizationPolicy>>,
    pub(crate) service_entries: Vec<Arc<ServiceEntry>>,
    pub(crate) workload_entries: Vec<Arc<WorkloadEntry>>,
    pub(crate) destination_rules: Vec<Arc<DestinationRule>>,
    pub(crate) mesh: MeshConfig,
}

impl PolicySet {
    /// The PeerAuthentications, in the order they were read.
    #[must_use]
    pub fn policies(&self) -> &[PeerAuthentication] {
        &self.policies
    }

    /// The break-glass documents, in the order they were read, also those that have ended.
    #[must_use]
    pub fn break_glass(&self) -> &[Arc<BreakGlass>] {
        &self.break_glass
    }

    /// Those that are in force at the time of the set.
    pub fn active_break_glass(&self) -> impl Iterator<Item = &Arc<BreakGlass>> {
        self.break_glass.iter().filter(|it| self.now.is_some_and(|now| it.is_active(now)))
    }

    /// The same set at another time, in Unix time.
    #[must_use]
    pub fn at(self, now_unix: i64) -> Self {
        Self { now: Some(now_unix), ..self }
    }

    /// The same set as if no break-glass document were in force.
    #[must_use]
    pub fn without_break_glass(self) -> Self {
        Self { now: None, ..self }
    }

    /// The AuthorizationPolicies, in the order they were read.
    #[must_use]
    pub fn authorization_policies(&self) -> &[Arc<AuthorizationPolicy>] {
        &self.authorization
    }

    /// The ServiceEntries, in the order they were read.
    #[must_use]
    pub fn service_entries(&self) -> &[Arc<ServiceEntry>] {
        &self.service_entries
    }

    /// The WorkloadEntries, in the order they were read.
    #[must_use]
    pub fn workload_entries(&self) -> &[Arc<WorkloadEntry>] {
        &self.workload_entries
    }

    /// The DestinationRules, in the order they were read.
    #[must_use]
    pub fn destination_rules(&self) -> &[Arc<DestinationRule>] {
        &self.destination_rules
    }

    /// Workloads and services of the mesh that have no sidecar, as the service directory says: connections to them are plaintext.
    pub fn without_sidecar(&self) -> impl Iterator<Item = &ResourceMeta> {
        let workloads = self.workload_entries.iter().filter(|entry| !entry.spec.has_sidecar).map(|entry| &entry.meta);
        let internal = self.service_entries.iter().filter(|entry| entry.location == Location::MeshInternal);
        let services = internal.filter(|entry| entry.endpoints.iter().any(|endpoint| !endpoint.has_sidecar));
        workloads.chain(services.map(|entry| &entry.meta))
    }

    /// The same set with these AuthorizationPolicies as well.
    #[must_use]
    pub fn with_authorization(mut self, policies: impl IntoIterator<Item = AuthorizationPolicy>) -> Self {
        self.authorization.extend(policies.into_iter().map(Arc::new));
        self
    }

    /// The same set after `kubectl apply` of the PeerAuthentications and AuthorizationPolicies of another one: those of the same kind,
    /// namespace and name are replaced, the others added.
    #[must_use]
    pub fn with_applied(mut self, other: &Self) -> Self {
        let glass = other.break_glass.iter().map(|new| &new.policy);
        let peer: BTreeSet<_> = other.policies.iter().chain(glass).map(|new| (&new.namespace, &new.name)).collect();
        let authorization: BTreeSet<_> = other.authorization.iter().map(|new| (&new.namespace, &new.name)).collect();
        self.policies.retain(|old| !peer.contains(&(&old.namespace, &old.name)));
        self.break_glass.retain(|old| !peer.contains(&(&old.policy.namespace, &old.policy.name)));
        self.break_glass.extend_from_slice(&other.break_glass);
        self.authorization.retain(|old| !authorization.contains(&(&old.namespace, &old.name)));
        self.policies.extend_from_slice(&other.policies);
        self.authorization.extend_from_slice(&other.authorization);
        self
    }

    /// The certificate settings of IstioOperator documents.
    #[must_use]
    pub const fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }
}

impl PolicySet {
    /// A set of policies that were not read from files.
    pub fn from_parts(
        policies: impl IntoIterator<Item = PeerAuthentication>,
        authorization: impl IntoIterator<Item = AuthorizationPolicy>,
    ) -> Self {
        let authorization = authorization.into_iter().map(Arc::new).collect();
        Self { policies: policies.into_iter().collect(), authorization, ..Self::default() }
    }
}

impl FromIterator<PeerAuthentication> for PolicySet {
    fn from_iter<I: IntoIterator<Item = PeerAuthentication>>(policies: I) -> Self {
        Self::from_parts(policies, [])
    }
}
