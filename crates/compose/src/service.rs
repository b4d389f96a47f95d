//! The network of a service that gets a sidecar, and the names by which the service is reached.

use std::collections::BTreeSet;

use serde_yaml::{Mapping, Value};

use crate::error::Reason;
use crate::file::ComposeFile;
use crate::names::SidecarNames;
use crate::settings::Settings;
use crate::yaml::{list, scalar};

/// Keys that compose refuses beside `network_mode: service:...`: they move to the holder of the namespace.
pub(crate) const NETWORK_KEYS: &[&str] = &[
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

/// A service with a sidecar: its network as it will be.
#[derive(Debug)]
pub(crate) struct MeshedService {
    pub(crate) name: String,
    /// Its namespace, as policies name it.
    pub(crate) namespace: String,
    /// Its SPIFFE ID.
    pub(crate) id: String,
    /// Names by which it is reached, its own first.
    pub(crate) hosts: Vec<String>,
    /// Networks of the holder, each with its aliases.
    pub(crate) networks: Mapping,
    /// Docker's names of the networks: two keys may mean the same network.
    network_names: BTreeSet<String>,
    pub(crate) links: Option<Value>,
    pub(crate) sysctls: Sysctls,
    /// What its author says of the sidecar.
    pub(crate) settings: Settings,
}

/// Kernel parameters of a service, in the form in which they are written.
#[derive(Debug, Default)]
pub(crate) struct Sysctls {
    /// Those of the network namespace.
    pub(crate) network: Option<Value>,
    /// All others, which stay with the app.
    pub(crate) app: Option<Value>,
}

/// An entry of `links`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    pub(crate) service: &'a str,
    pub(crate) alias: &'a str,
}

impl<'a> Link<'a> {
    pub(crate) fn parse(text: &'a str) -> Self {
        let (service, alias) = text.split_once(':').unwrap_or((text, text));
        Self { service, alias }
    }
}

impl MeshedService {
    /// Reads the service `name` from its definition, or from the holder of its namespace. Links to `meshed` services are moved.
    pub(crate) fn new(
        name: &str,
        namespace: &str,
        id: String,
        definition: &Mapping,
        file: &ComposeFile,
        meshed: &[String],
    ) -> Result<Self, Vec<Reason>> {
        let mut problems = Vec::new();
        let mut report = |reason: Reason| problems.push(reason);
        let settings = Settings::read(definition);
        let mut aliases = vec![name.to_owned()];
        aliases.extend(definition.get("container_name").and_then(scalar));
        let networks = networks(definition.get("networks"), &aliases).map_err(&mut report).unwrap_or_default();
        let mut hosts = aliases;
        for (_, network) in &networks {
            let more = network.get("aliases").and_then(Value::as_sequence).into_iter().flatten().filter_map(scalar);
            let more: Vec<_> = more.filter(|alias| !hosts.contains(alias)).collect();
            hosts.extend(more);
        }
        let links = definition.get("links").map(|links| moved_links(links, meshed)).transpose();
        let links = links.map_err(&mut report).ok().flatten();
        let sysctls = definition.get("sysctls").map(split_sysctls).transpose();
        let sysctls = sysctls.map_err(&mut report).ok().flatten().unwrap_or_default();
        let network_names = networks.keys().filter_map(scalar).map(|key| network_name(&key, file)).collect();
        let settings = settings.map_err(|reasons| problems.extend(reasons)).unwrap_or_default();
        if !problems.is_empty() {
            return Err(problems);
        }
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        Ok(Self { name, namespace, id, hosts, networks, network_names, links, sysctls, settings })
    }

    /// The `network_mode` of whatever joins its namespace.
    pub(crate) fn network_mode(&self) -> Value {
        Value::from(format!("service:{}", SidecarNames::of(&self.name).holder))
    }

    /// Its namespace and name.
    pub(crate) fn workload(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether the two can reach each other. An entry of an unreachable service would wait for a name that never resolves.
    pub(crate) fn shares_network_with(&self, other: &Self) -> bool {
        !self.network_names.is_disjoint(&other.network_names)
    }
}

/// `networks` in the long form, each with `aliases` in addition to its own.
fn networks(written: Option<&Value>, aliases: &[String]) -> Result<Mapping, Reason> {
    let named: Mapping = match written {
        None | Some(Value::Null) => [(Value::from("default"), Value::Null)].into_iter().collect(),
        Some(Value::Sequence(names)) => names.iter().map(|name| (name.clone(), Value::Null)).collect(),
        Some(Value::Mapping(networks)) => networks.clone(),
        Some(_) => return Err(Reason::NeitherListNorMapping("networks")),
    };
    let mut all = Mapping::new();
    for (name, network) in named {
        let mut network = match network {
            Value::Null => Mapping::new(),
            Value::Mapping(network) => network,
            _ => return Err(Reason::NetworkEntry),
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

/// Docker's name of a network of this file: its `name`, or that of `external`.
fn network_name(key: &str, file: &ComposeFile) -> String {
    let Some(network) = file.network(key) else {
        return format!("project/{key}");
    };
    let external = network.get("external");
    let named = network.get("name").or_else(|| external.and_then(|external| external.get("name"))).and_then(scalar);
    let is_external = external.is_some_and(|external| external.as_bool() != Some(false));
    named.unwrap_or_else(|| if is_external { key.to_owned() } else { format!("project/{key}") })
}

/// Points links to meshed services at the holders of their namespaces, under the same alias.
pub(crate) fn moved_links(links: &Value, meshed: &[String]) -> Result<Value, Reason> {
    let links = links.as_sequence().ok_or(Reason::LinksNotAList)?;
    Ok(list(links.iter().filter_map(scalar).map(|text| {
        let link = Link::parse(&text);
        if !meshed.iter().any(|name| name == link.service) {
            return text;
        }
        format!("{}:{}", SidecarNames::of(link.service).holder, link.alias)
    })))
}

fn split_sysctls(written: &Value) -> Result<Sysctls, Reason> {
    let is_net = |key: &Value| scalar(key).is_some_and(|key| key.starts_with("net."));
    match written {
        Value::Mapping(all) => {
            let (network, app): (Vec<_>, Vec<_>) = all.clone().into_iter().partition(|(key, _)| is_net(key));
            let some =
                |part: Vec<(Value, Value)>| (!part.is_empty()).then(|| Value::Mapping(part.into_iter().collect()));
            Ok(Sysctls { network: some(network), app: some(app) })
        }
        Value::Sequence(all) => {
            let (network, app): (Vec<_>, Vec<_>) = all.iter().cloned().partition(is_net);
            let some = |part: Vec<Value>| (!part.is_empty()).then_some(Value::Sequence(part));
            Ok(Sysctls { network: some(network), app: some(app) })
        }
        _ => Err(Reason::NeitherListNorMapping("sysctls")),
    }
}
