//! Checks which services cannot have a sidecar, and warnings for the author of the file.

use std::ops::RangeInclusive;

use portcullis_config::is_name;
use serde_yaml::{Mapping, Value};

use crate::ca::Ca;
use crate::error::{Error, Problem, Reason};
use crate::file::ComposeFile;
use crate::names::{SidecarNames, joined_namespace, owner};
use crate::request::Request;
use crate::service::MeshedService;
use crate::yaml::scalar;

/// User ID of the sidecar, whose own connections are not redirected.
const PROXY_USER: &str = "1337";
/// The admin server and the transparent listeners: if they were published, clients could bypass the redirect.
const SIDECAR_PORTS: [u16; 3] = [15000, 15001, 15006];

/// The requested services, each once, if all of them exist and none has a sidecar.
pub(crate) fn selected(file: &ComposeFile, ca: &Ca, request: &Request) -> Result<Vec<String>, Error> {
    let services = file.services()?;
    let mut selected: Vec<String> = Vec::new();
    let mut problems = Vec::new();
    for name in &request.services {
        let Some(service) = services.get(name.as_str()) else {
            let present = services.keys().filter_map(scalar).collect();
            problems.push(Problem::UnknownService { name: name.clone(), present });
            continue;
        };
        if let Some(reason) = not_selectable(name, service, file, ca) {
            problems.push(Problem::of_service(name, reason));
        } else if !selected.contains(name) {
            selected.push(name.clone());
        }
    }
    if problems.is_empty() { Ok(selected) } else { Err(Error::Refused(problems)) }
}

fn not_selectable(name: &str, service: &Value, file: &ComposeFile, ca: &Ca) -> Option<Reason> {
    let Some(service) = service.as_mapping() else { return Some(Reason::NotAMapping) };
    if !is_name(name) {
        return Some(Reason::InvalidName);
    }
    if ca.includes(name) {
        return Some(Reason::IsCa);
    }
    if owner(service).is_some() {
        return Some(Reason::IsSidecar);
    }
    let holder = file.service(&SidecarNames::of(name).holder);
    holder.and_then(owner).map(|_| Reason::HasSidecar)
}

/// Every reason why the selected services cannot have a sidecar.
pub(crate) fn problems(file: &ComposeFile, services: &Mapping, selected: &[String]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in selected {
        let mut report = |reason: Reason| problems.push(Problem::of_service(name, reason));
        let names = SidecarNames::of(name);
        for taken in names.services().into_iter().filter(|generated| services.contains_key(generated)) {
            report(Reason::ServiceNameTaken(taken.to_owned()));
        }
        for taken in names.volumes().into_iter().filter(|generated| file.has_volume(generated)) {
            report(Reason::VolumeNameTaken(taken.to_owned()));
        }
    }
    for (name, service) in services {
        let (Some(name), Some(service)) = (scalar(name), service.as_mapping()) else { continue };
        let is_selected = selected.contains(&name);
        let joins_selected = joined_namespace(service).is_some_and(|joined| selected.iter().any(|name| name == joined));
        let mut reasons = if is_selected { service_problems(service) } else { Vec::new() };
        if (is_selected || joins_selected) && runs_as_proxy(service) {
            reasons.push(Reason::RunsAsProxyUser(PROXY_USER));
        }
        if let Some(base) = extended_here(service).filter(|base| !is_selected && selected.contains(base)) {
            reasons.push(Reason::ExtendsMeshed(base));
        }
        problems.extend(reasons.into_iter().map(|reason| Problem::of_service(&name, reason)));
    }
    problems
}

fn service_problems(service: &Mapping) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(mode) = service.get("network_mode").or_else(|| service.get("net")) {
        let mode = scalar(mode).unwrap_or_default();
        reasons.push(if mode == "host" { Reason::HostNetwork } else { Reason::NetworkMode(mode) });
    }
    if service.contains_key("extends") {
        reasons.push(Reason::UsesExtends);
    }
    let deploy = service.get("deploy");
    if deploy.and_then(|deploy| deploy.get("mode")).and_then(Value::as_str) == Some("global") {
        reasons.push(Reason::GlobalDeployment);
    }
    let replicas = deploy.and_then(|deploy| deploy.get("replicas")).map(|count| ("deploy.replicas", count));
    let scale = service.get("scale").map(|count| ("scale", count));
    for (key, count) in replicas.into_iter().chain(scale) {
        let count = scalar(count).unwrap_or_default();
        if !["0", "1"].contains(&count.as_str()) {
            reasons.push(Reason::Scaled { key, count });
        }
    }
    for PublishedPort { written, targets } in published_ports(service) {
        if let Some(port) = SIDECAR_PORTS.into_iter().find(|port| targets.contains(port)) {
            reasons.push(Reason::PublishesSidecarPort { written, port });
        }
    }
    reasons
}

/// Warnings for the author of the file.
pub(crate) fn warnings(services: &Mapping, selected: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in selected {
        let Some(service) = services.get(name.as_str()).and_then(Value::as_mapping) else { continue };
        let mut warn = |text: &str| warnings.push(format!("service {name}: {text}"));
        if service.get("privileged").is_some_and(|value| value.as_bool() != Some(false)) {
            warn("is privileged and can bypass its sidecar");
        } else if texts(service.get("cap_add")).any(|capability| {
            let capability = capability.to_ascii_uppercase();
            ["ALL", "NET_ADMIN", "SYS_ADMIN"].contains(&capability.strip_prefix("CAP_").unwrap_or(&capability))
        }) {
            warn("has a capability (cap_add) with which it can bypass its sidecar");
        }
        if service.get("user").and_then(scalar).is_some_and(|user| user.contains('$')) {
            warn("takes its user from a variable; as user 1337 its connections would bypass the sidecar");
        }
        if texts(service.get("ports")).chain(texts(service.get("expose"))).any(|port| port.ends_with("/udp"))
            || sequence(service.get("ports")).any(|port| port.get("protocol").and_then(Value::as_str) == Some("udp"))
        {
            warn("has UDP ports, which are not redirected: no policy applies to them");
        }
    }
    warnings
}

/// Warnings for a file that gets a root of its own, although other projects are in its networks: two CAs would both answer to the name
/// `ca` there, and the sidecars of one would not trust those of the other.
pub(crate) fn shared_networks(file: &ComposeFile, meshed: &[&MeshedService]) -> Vec<String> {
    let mut shared: Vec<String> = Vec::new();
    for key in meshed.iter().flat_map(|service| service.networks.keys()).filter_map(scalar) {
        let external = file.network(&key).and_then(|network| network.get("external"));
        let is_external = external.is_some_and(|external| external.as_bool() != Some(false));
        if is_external && !shared.contains(&key) {
            shared.push(key);
        }
    }
    let warning = |key: &String| {
        format!(
            "network {key} is external, and this file gets a CA with a root of its own: sidecars of other projects there do not trust it, and \
             a second `ca` in it is found in place of this one. If a CA is there already, join it: --ca HOST:PORT --token-file FILE"
        )
    };
    shared.iter().map(warning).collect()
}

/// Removes the hosts that two services answer to, since their address would be ambiguous. Each service keeps its own name.
pub(crate) fn keep_unambiguous_hosts(services: &Mapping, meshed: &mut [&mut MeshedService]) {
    let mut all: Vec<String> = Vec::new();
    for service in meshed.iter() {
        all.extend(service.hosts.iter().cloned());
    }
    for (name, service) in services {
        // The holder of a namespace answers to the names of the service that it belongs to.
        let is_part = service.as_mapping().and_then(owner).is_some();
        let Some(name) = scalar(name).filter(|name| !is_part && !meshed.iter().any(|meshed| meshed.name == *name))
        else {
            continue;
        };
        let networks = service.get("networks").and_then(Value::as_mapping).into_iter().flatten();
        let mut own: Vec<_> =
            networks.flat_map(|(_, network)| texts(network.get("aliases")).collect::<Vec<_>>()).collect();
        own.push(name);
        own.sort_unstable();
        own.dedup();
        all.extend(own);
    }
    let is_host = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    for service in meshed {
        let own = service.name.clone();
        // The value of a compose variable is unknown here; the service's own name leads to the same addresses.
        service
            .hosts
            .retain(|host| *host == own || (is_host(host) && all.iter().filter(|other| *other == host).count() == 1));
    }
}

fn extended_here(service: &Mapping) -> Option<String> {
    let extends = service.get("extends")?;
    match extends.get("file") {
        Some(_) => None,
        None => scalar(extends).or_else(|| extends.get("service").and_then(scalar)),
    }
}

fn runs_as_proxy(service: &Mapping) -> bool {
    let user = service.get("user").and_then(scalar).unwrap_or_default();
    user.split(':').next() == Some(PROXY_USER)
}

/// An entry of `ports`.
struct PublishedPort {
    written: String,
    /// The ports of the container.
    targets: RangeInclusive<u16>,
}

fn published_ports(service: &Mapping) -> Vec<PublishedPort> {
    sequence(service.get("ports"))
        .filter_map(|port| {
            let written = scalar(port).or_else(|| port.get("target").and_then(scalar))?;
            let target = written.rsplit(':').next()?.split('/').next()?;
            let (first, last) = target.split_once('-').unwrap_or((target, target));
            let targets = first.parse().ok()?..=last.parse().ok()?;
            Some(PublishedPort { written, targets })
        })
        .collect()
}

fn sequence(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_sequence).into_iter().flatten()
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    sequence(value).filter_map(scalar)
}
