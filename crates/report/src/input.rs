//! What reports are made from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_api::{Mode as ApiMode, Observations, ProxyInfo, Timestamp};
use portcullis_policy::{MeshSettings, Mode};
use serde::Serialize;

use crate::text::clean;

/// The answer of one sidecar.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How the caller names the sidecar: its address, or the file that its answer was saved in.
    pub label: String,
    /// What it observed, or why it did not answer.
    pub observations: Result<Observations, String>,
}

/// A sidecar that did not answer.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Unanswered {
    /// How the caller names it.
    pub address: String,
    /// Why.
    pub message: String,
}

/// A workload.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Names of addresses that the caller knows from elsewhere, such as a container engine.
#[derive(Clone, Debug, Default)]
pub struct Names(BTreeMap<IpAddr, (String, Timestamp)>);

/// A workload of a service directory that has no sidecar.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NoSidecar {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where that is written, `file:line`.
    pub written: String,
}

impl Names {
    /// The name of an address, if it had that at this time.
    #[must_use]
    pub(crate) fn get(&self, address: IpAddr, at: Timestamp) -> Option<&str> {
        let (name, since) = self.0.get(&address.to_canonical())?;
        (*since <= at).then_some(name.as_str())
    }

    /// Since when the present owner has the address; none if nobody knows.
    pub(crate) fn since(&self, address: IpAddr) -> Option<Timestamp> {
        self.0.get(&address.to_canonical()).map(|(_, since)| *since)
    }
}

impl FromIterator<(IpAddr, String, Timestamp)> for Names {
    /// Names, each with the moment since when it has the address.
    fn from_iter<I: IntoIterator<Item = (IpAddr, String, Timestamp)>>(names: I) -> Self {
        let named =
            |(address, name, since): (IpAddr, String, Timestamp)| (address.to_canonical(), (clean(&name), since));
        Self(names.into_iter().map(named).collect())
    }
}

impl FromIterator<(IpAddr, String)> for Names {
    /// Names that were always there.
    fn from_iter<I: IntoIterator<Item = (IpAddr, String)>>(names: I) -> Self {
        let always = Timestamp::from_unix(i64::MIN);
        names.into_iter().map(|(address, name)| (address, name, always)).collect()
    }
}

/// Sorts answers into those that are there and those that are not.
pub(crate) fn split(answers: &[Answer]) -> (Vec<&Observations>, Vec<Unanswered>) {
    let (mut answered, mut silent) = (Vec::new(), Vec::new());
    for answer in answers {
        match &answer.observations {
            Ok(observations) => answered.push(observations),
            Err(reason) => silent.push(Unanswered { address: clean(&answer.label), message: clean(reason) }),
        }
    }
    silent.sort();
    (answered, silent)
}

/// The settings of the mesh that a sidecar has; what it does not tell is that of `fallback`.
pub(crate) fn mesh_of(proxy: &ProxyInfo, fallback: &MeshSettings) -> MeshSettings {
    let trust_domains = if proxy.trust_domain.is_empty() {
        fallback.trust_domains.clone()
    } else {
        [&proxy.trust_domain].into_iter().chain(&proxy.trust_domain_aliases).cloned().collect()
    };
    let root = if proxy.root_namespace.is_empty() { &fallback.root_namespace } else { &proxy.root_namespace };
    MeshSettings {
        root_namespace: root.clone(),
        default_mode: match proxy.default_mode {
            ApiMode::Strict => Mode::Strict,
            ApiMode::Permissive => Mode::Permissive,
            ApiMode::Disable => Mode::Disable,
            ApiMode::Unknown => fallback.default_mode,
        },
        trust_domains,
    }
}
