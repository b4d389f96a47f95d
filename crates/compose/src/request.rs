//! The caller's request.

use portcullis_identity::TrustDomain;

/// The services that get a sidecar, and the settings of the sidecars.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names of the services.
    pub services: Vec<String>,
    /// Namespace of the workloads, as policies name it.
    pub namespace: String,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Image of the sidecar.
    pub image: String,
    /// Folder with the policies, as the compose file names it.
    pub policies: String,
    /// A CA that is there already, instead of one of this project.
    pub joined: Option<JoinedCa>,
}

/// A CA of another project or host, which the sidecars of this one join.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinedCa {
    /// Host and port, as the containers find it.
    pub address: String,
    /// File with the join token, as the compose file names it.
    pub token_file: String,
}

impl Request {
    /// The SPIFFE ID that a service gets.
    pub(crate) fn spiffe_id(&self, service: &str) -> String {
        format!("spiffe://{}/ns/{}/sa/{service}", self.trust_domain, self.namespace)
    }
}
