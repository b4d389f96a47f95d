//! Names of generated services and volumes, and the label by which a later run finds them.

use serde_yaml::Mapping;

use crate::yaml::scalar;

/// On each service of a sidecar; its value is the service that the sidecar belongs to.
pub(crate) const SIDECAR_OF: &str = "portcullis.sidecar-of";
/// On what belongs to the mesh and is no workload.
pub(crate) const COMPONENT: &str = "portcullis.component";
/// On the proxy; its value is where the socket of the admin server is in the container.
pub(crate) const ADMIN_SOCKET: &str = "portcullis.admin-socket";

/// The names that a sidecar adds to the file.
#[derive(Debug)]
pub(crate) struct SidecarNames {
    /// The service that holds the network namespace, and installs the redirect rules in it.
    pub(crate) holder: String,
    /// The service that runs the proxy.
    pub(crate) proxy: String,
    /// The service that exits once the proxy is ready, and for which the app waits.
    pub(crate) ready: String,
    /// The volume with the token and the roots.
    pub(crate) identity_volume: String,
    /// The volume with the socket of the admin server.
    pub(crate) admin_volume: String,
    /// The volume with what is remembered of connections.
    pub(crate) ledger_volume: String,
}

impl SidecarNames {
    /// The names for the sidecar of `service`.
    pub(crate) fn of(service: &str) -> Self {
        Self {
            holder: format!("{service}-net"),
            proxy: format!("{service}-proxy"),
            ready: format!("{service}-ready"),
            identity_volume: format!("{service}-identity"),
            admin_volume: format!("{service}-admin"),
            ledger_volume: format!("{service}-ledger"),
        }
    }

    /// The names of the services.
    pub(crate) fn services(&self) -> [&str; 3] {
        [&self.holder, &self.proxy, &self.ready]
    }

    /// The names of the volumes.
    pub(crate) fn volumes(&self) -> [&str; 3] {
        [&self.identity_volume, &self.admin_volume, &self.ledger_volume]
    }
}

/// The service for whose sidecar a service was generated.
pub(crate) fn owner(service: &Mapping) -> Option<String> {
    service.get("labels").and_then(|labels| labels.get(SIDECAR_OF)).and_then(scalar)
}

/// The service whose network namespace a service joins.
pub(crate) fn joined_namespace(service: &Mapping) -> Option<&str> {
    service.get("network_mode")?.as_str()?.strip_prefix("service:")
}
