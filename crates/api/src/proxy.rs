//! Which sidecar answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// The sidecar that answers, and the workload beside it. Part of every answer, so that answers of many sidecars can be merged.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ProxyInfo {
    /// `workload.name`.
    pub name: String,
    /// `workload.namespace`.
    pub namespace: String,
    /// `workload.service`; the name if it is not set.
    pub service: String,
    /// The SPIFFE ID of the workload.
    pub identity: String,
    /// `mesh.trustDomain`.
    pub trust_domain: String,
    /// `mesh.trustDomainAliases`: policies that name one of them mean the trust domain.
    pub trust_domain_aliases: Vec<String>,
    /// `mesh.rootNamespace`.
    pub root_namespace: String,
    /// `mesh.defaultMode`.
    pub default_mode: crate::Mode,
    /// `workload.labels`, which selectors of policies match.
    pub labels: BTreeMap<String, String>,
    /// The version of the program.
    pub version: String,
    /// `INITIALIZING`, `LIVE` or `DRAINING`, in Envoy's words.
    pub state: String,
    /// When the process started.
    pub started_at: Timestamp,
    /// The clock of the sidecar when it answered, by which a reader notices a wrong clock.
    pub now: Timestamp,
}
