//! The description of a workload, over all of its proxies.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_api::{DecidingPolicy, Direction, Mode, Observation, ProxyInfo, Transport};
use portcullis_discovery::ContainerNames;
use serde::Serialize;

use super::ask::Answered;
use crate::commands::proxies::Answer;

/// A workload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Description {
    pub(super) workload: String,
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) identity: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) proxies: Vec<Proxy>,
    /// Every port that something names, then every other one.
    pub(super) ports: Vec<Port>,
    /// `name.namespace`, from wide to narrow.
    pub(super) applied_peer_authentication: Vec<String>,
    pub(super) applied_authorization: Vec<Authorization>,
    /// For how long every proxy has observed, at least.
    pub(super) observed_seconds: u64,
    pub(super) warnings: Vec<String>,
}

/// One proxy of the workload.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Proxy {
    pub(super) address: String,
    pub(super) state: String,
    pub(super) version: String,
}

/// One port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Port {
    /// `null`: every other port.
    pub(super) port: Option<u16>,
    pub(super) mode: Mode,
    pub(super) decided_by: DecidingPolicy,
    pub(super) observed: Observed,
}

/// What clients did.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Observed {
    /// Let through.
    pub(super) connections: u64,
    /// Of these over mutual TLS.
    pub(super) mutual_tls: u64,
    /// Of these over anything else.
    pub(super) plaintext: u64,
    pub(super) rejected: u64,
    /// Clients that STRICT would refuse.
    pub(super) would_break_if_strict: BTreeSet<String>,
}

/// An AuthorizationPolicy that applies.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Authorization {
    pub(super) name: String,
    pub(super) action: String,
}

impl Description {
    pub(super) fn name(&self) -> String {
        format!("workload/{}.{}", self.workload, self.namespace)
    }

    /// One for each workload; replicas are one workload.
    pub(super) fn of_workloads(answers: &[Answer<Answered>], containers: &ContainerNames) -> Vec<Self> {
        let mut workloads: BTreeMap<(String, String), Vec<&Answer<Answered>>> = BTreeMap::new();
        for answer in answers {
            let ProxyInfo { name, namespace, .. } = &answer.value.seen.proxy;
            workloads.entry((namespace.clone(), name.clone())).or_default().push(answer);
        }
        workloads.values().filter_map(|replicas| Self::new(replicas, containers)).collect()
    }

    fn new(replicas: &[&Answer<Answered>], containers: &ContainerNames) -> Option<Self> {
        let Answered { seen, policies, explanations } = &replicas.first()?.value;
        let proxy = &seen.proxy;
        let seen_all: Vec<&Observation> = replicas.iter().flat_map(|one| &one.value.seen.observations).collect();
        let mut applied = Vec::new();
        for by in explanations.iter().flat_map(|explanation| &explanation.ladder).map(|rung| &rung.by) {
            let name = format!("{}.{}", by.name.as_deref().unwrap_or("-"), by.namespace.as_deref().unwrap_or("-"));
            if !applied.contains(&name) {
                applied.push(name);
            }
        }
        let authorization = policies.authorization_policies.iter().filter(|policy| policy.applies_to(proxy));
        Some(Self {
            workload: proxy.name.clone(),
            namespace: proxy.namespace.clone(),
            service: proxy.service.clone(),
            identity: proxy.identity.clone(),
            labels: proxy.labels.clone(),
            proxies: replicas.iter().map(|one| proxy_line(one)).collect(),
            ports: ports(seen, &seen_all, containers),
            applied_peer_authentication: applied,
            applied_authorization: authorization
                .map(|policy| Authorization {
                    name: format!("{}.{}", policy.name, policy.namespace),
                    action: policy.action.clone(),
                })
                .collect(),
            observed_seconds: replicas.iter().map(|one| one.value.seen.observed_seconds).min().unwrap_or_default(),
            warnings: warnings(replicas),
        })
    }
}

fn proxy_line(answer: &Answer<Answered>) -> Proxy {
    let ProxyInfo { state, version, .. } = &answer.value.seen.proxy;
    Proxy { address: answer.target.address.to_string(), state: state.clone(), version: version.clone() }
}

fn warnings(replicas: &[&Answer<Answered>]) -> Vec<String> {
    let mut warnings = Vec::new();
    let hashes: BTreeSet<_> = replicas.iter().map(|one| &one.value.policies.hash).collect();
    if hashes.len() > 1 {
        warnings
            .push("its proxies have different policies; this shows those of the first (see proxy-status)".to_owned());
    }
    for one in replicas {
        let (address, proxy) = (&one.target.address, &one.value.seen.proxy);
        if proxy.state != "LIVE" {
            warnings.push(format!("the proxy at {address} is {}", proxy.state));
        }
        if let Some(problem) = &one.value.policies.problem {
            let first = problem.message.lines().next().unwrap_or_default();
            warnings.push(format!(
                "the proxy at {address} has older policies in force, since newer files have a mistake: {first}"
            ));
        }
        if one.value.seen.evicted > 0 {
            warnings
                .push(format!("the proxy at {address} observed more peers than it keeps; the counts are not complete"));
        }
    }
    warnings
}

/// Ports that something names or that a client connected to, and every other one.
fn ports(seen: &portcullis_api::Observations, all: &[&Observation], containers: &ContainerNames) -> Vec<Port> {
    let named: Vec<u16> = seen.ports.iter().filter_map(|port| port.port).collect();
    let port = |port: &portcullis_api::PortMode| {
        let is_of = |one: &&&Observation| {
            one.direction == Direction::Inbound
                && port.port.map_or_else(|| !named.contains(&one.port), |port| one.port == port)
        };
        let mut observed = Observed::default();
        for one in all.iter().filter(is_of) {
            observed.add(one, containers);
        }
        Port { port: port.port, mode: port.mode, decided_by: port.decided_by.clone(), observed }
    };
    seen.ports.iter().map(port).collect()
}

impl Observed {
    fn add(&mut self, one: &Observation, containers: &ContainerNames) {
        let is_mtls = one.transport == Transport::Mtls;
        let part = if is_mtls { &mut self.mutual_tls } else { &mut self.plaintext };
        *part = part.saturating_add(one.allowed);
        self.connections = self.connections.saturating_add(one.allowed);
        self.rejected = self.rejected.saturating_add(one.refused);
        if !is_mtls && one.allowed > 0 {
            let address = one.peer.address;
            let container = address.and_then(|address| containers.get(address)).map(str::to_owned);
            let name = container.or_else(|| one.peer.name.clone());
            let client = match (name, address) {
                (Some(name), Some(address)) => format!("{name} ({address})"),
                (Some(name), None) => name,
                (None, Some(address)) => address.to_string(),
                (None, None) => "unknown".to_owned(),
            };
            self.would_break_if_strict.insert(client);
        }
    }
}
