//! All policies of a mesh, as one value.

use portcullis_istio::MeshConfig;

use crate::resource::PeerAuthentication;

/// Every PeerAuthentication of a mesh, in any order, and the certificate settings of its IstioOperators.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PolicySet {
    pub(crate) policies: Vec<PeerAuthentication>,
    pub(crate) mesh: MeshConfig,
}

impl PolicySet {
    /// The policies, in the order they were read.
    #[must_use]
    pub fn policies(&self) -> &[PeerAuthentication] {
        &self.policies
    }

    /// The certificate settings of IstioOperator documents.
    #[must_use]
    pub const fn mesh(&self) -> &MeshConfig {
        &self.mesh
    }
}

impl FromIterator<PeerAuthentication> for PolicySet {
    fn from_iter<I: IntoIterator<Item = PeerAuthentication>>(policies: I) -> Self {
        Self { policies: policies.into_iter().collect(), mesh: MeshConfig::default() }
    }
}
