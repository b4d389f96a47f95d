//! What of a service belongs to its network namespace, and where it is reached.

use std::collections::BTreeSet;

use serde_yaml::{Mapping, Value};

use super::parts;
use super::yaml::{list, scalar};

/// Keys that cannot stand beside `network_mode: service:...`: they go with the namespace.
pub(super) const MOVED: &[&str] = &[
    "networks",
    "ports",
    "expose",
    "dns",
    "dns_search",
    "dns_opt",
    "extra_hosts",
    "hostname",
    "domainname",
    "mac_address",
    "links",
    "external_links",
];

/// A service that gets a sidecar: its network, as it will be.
#[derive(Debug)]
pub(super) struct Meshed {
    pub(super) name: String,
    /// Its SPIFFE ID.
    pub(super) id: String,
    /// Names that it is reached by, its own first.
    pub(super) hosts: Vec<String>,
    /// Networks of the holder, each with the aliases.
    pub(super) networks: Mapping,
    /// What the networks are really called: two keys may mean the same one.
    pub(super) reached_over: BTreeSet<String>,
    pub(super) links: Option<Value>,
    /// Kernel parameters of the namespace, and those that stay with the app.
    pub(super) net_sysctls: Option<Value>,
    pub(super) other_sysctls: Option<Value>,
}

impl Meshed {
    /// Reads the service; what is not shaped as compose has it is told.
    pub(super) fn new(
        name: &str,
        id: String,
        original: &Mapping,
        document: &Mapping,
        meshed: &[String],
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut told = |error: String| problems.push(format!("service {name}: {error}"));
        let mut aliases = vec![name.to_owned()];
        aliases.extend(original.get("container_name").and_then(scalar));
        let networks = networks(original.get("networks"), &aliases).map_err(&mut told).unwrap_or_default();
        let mut hosts = aliases;
        for (_, network) in &networks {
            let more = network.get("aliases").and_then(Value::as_sequence).into_iter().flatten().filter_map(scalar);
            let more: Vec<_> = more.filter(|alias| !hosts.contains(alias)).collect();
            hosts.extend(more);
        }
        let links = original.get("links").map(|links| moved_links(links, meshed)).transpose();
        let sysctls = original.get("sysctls").map(split_sysctls).transpose();
        let links = links.map_err(&mut told).ok().flatten();
        let (net_sysctls, other_sysctls) = sysctls.map_err(&mut told).ok().flatten().unwrap_or_default();
        let reached_over = networks.keys().filter_map(scalar).map(|key| real_name(&key, document)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { name: name.to_owned(), id, hosts, networks, reached_over, links, net_sysctls, other_sysctls })
    }

    pub(super) fn holder(&self) -> String {
        holder(&self.name)
    }

    /// The volume with its token.
    pub(super) fn identity(&self) -> String {
        identity(&self.name)
    }

    pub(super) fn network_mode(&self) -> Value {
        Value::from(format!("service:{}", self.holder()))
    }

    /// Whether they can reach each other. A route to what cannot be reached would wait for a name that never resolves.
    pub(super) fn shares_a_network_with(&self, other: &Self) -> bool {
        !self.reached_over.is_disjoint(&other.reached_over)
    }
}

/// The volume in which a service has its token.
pub(super) fn identity(service: &str) -> String {
    format!("{service}-identity")
}

/// The service that holds the namespace of another one.
pub(super) fn holder(service: &str) -> String {
    let [net, ..] = parts::names(service);
    net
}

/// `networks` in the long form, each with these aliases besides its own.
fn networks(written: Option<&Value>, aliases: &[String]) -> Result<Mapping, String> {
    let named: Mapping = match written {
        None | Some(Value::Null) => [(Value::from("default"), Value::Null)].into_iter().collect(),
        Some(Value::Sequence(names)) => names.iter().map(|name| (name.clone(), Value::Null)).collect(),
        Some(Value::Mapping(networks)) => networks.clone(),
        Some(_) => return Err("networks is neither a list nor a mapping".to_owned()),
    };
    let mut all = Mapping::new();
    for (name, network) in named {
        let mut network = match network {
            Value::Null => Mapping::new(),
            Value::Mapping(network) => network,
            _ => return Err("an entry of networks is no mapping".to_owned()),
        };
        let mut names = aliases.to_vec();
        let own = network.get("aliases").and_then(Value::as_sequence).into_iter().flatten().filter_map(scalar);
        let own: Vec<_> = own.filter(|alias| !names.contains(alias)).collect();
        names.extend(own);
        network.insert(Value::from("aliases"), list(names));
        all.insert(name, Value::Mapping(network));
    }
    Ok(all)
}

/// What Docker calls a network of this file: its `name`, or that of `external`.
fn real_name(key: &str, document: &Mapping) -> String {
    let Some(network) = document.get("networks").and_then(|networks| networks.get(key)) else {
        return format!("project/{key}");
    };
    let external = network.get("external");
    let named = network.get("name").or_else(|| external.and_then(|external| external.get("name"))).and_then(scalar);
    let is_external = external.is_some_and(|external| external.as_bool() != Some(false));
    named.unwrap_or_else(|| if is_external { key.to_owned() } else { format!("project/{key}") })
}

/// Links that lead to meshed services lead to the holders of their namespaces, under the name that they had.
pub(super) fn moved_links(links: &Value, meshed: &[String]) -> Result<Value, String> {
    let links = links.as_sequence().ok_or("links is no list")?;
    Ok(list(links.iter().filter_map(scalar).map(|link| match linked(&link) {
        (service, alias) if meshed.iter().any(|name| name == service) => format!("{}:{alias}", holder(service)),
        _ => link,
    })))
}

/// The service and the alias of a link.
pub(super) fn linked(link: &str) -> (&str, &str) {
    link.split_once(':').unwrap_or((link, link))
}

/// Kernel parameters of the network namespace, and all others; each in the form in which they are written.
fn split_sysctls(written: &Value) -> Result<(Option<Value>, Option<Value>), String> {
    let is_net = |key: &Value| scalar(key).is_some_and(|key| key.starts_with("net."));
    match written {
        Value::Mapping(all) => {
            let (net, other): (Vec<_>, Vec<_>) = all.clone().into_iter().partition(|(key, _)| is_net(key));
            let some =
                |part: Vec<(Value, Value)>| (!part.is_empty()).then(|| Value::Mapping(part.into_iter().collect()));
            Ok((some(net), some(other)))
        }
        Value::Sequence(all) => {
            let (net, other): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_net);
            let some = |part: Vec<Value>| (!part.is_empty()).then_some(Value::Sequence(part));
            Ok((some(net), some(other)))
        }
        _ => Err("sysctls is neither a list nor a mapping".to_owned()),
    }
}
