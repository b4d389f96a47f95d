//! What stands in the way of a sidecar, and what its author should know.

use portcullis_config::{NAME_RULE, is_name};
use serde_yaml::{Mapping, Value};

use super::authority::Authority;
use super::network::{self, Meshed};
use super::yaml::scalar;
use super::{Request, parts, standing};

/// User of the sidecar: what it sends is not captured.
const PROXY_USER: &str = "1337";
/// Transparent listeners and admin: published, they could be dialled past the capture.
const OWN_PORTS: [u16; 3] = [15000, 15001, 15006];

/// The services of the file.
pub(super) fn services(document: &Mapping) -> Result<Mapping, Vec<String>> {
    let services = document.get("services").and_then(Value::as_mapping);
    services.cloned().ok_or_else(|| vec!["has no services; is it a compose file?".to_owned()])
}

/// The named services, each once, if all of them are there.
pub(super) fn wanted(services: &Mapping, authority: &Authority, request: &Request) -> Result<Vec<String>, Vec<String>> {
    let mut wanted: Vec<String> = Vec::new();
    let mut problems = Vec::new();
    for name in &request.services {
        match services.get(name.as_str()) {
            None => {
                let there: Vec<_> = services.keys().filter_map(scalar).collect();
                problems.push(format!("there is no service {name:?}; there are: {}", there.join(", ")));
            }
            Some(service) if !service.is_mapping() => problems.push(format!("service {name}: is no mapping")),
            Some(_) if !is_name(name) => problems.push(format!(
                "service {name}: cannot be the name of a workload ({NAME_RULE}); rename it, and keep the old name as an \
                 alias in networks"
            )),
            Some(_) if authority.is(name) => {
                problems.push(format!("service {name}: is the authority itself, whose callers have no certificate yet"));
            }
            Some(service) if service.as_mapping().and_then(standing::owner).is_some() => {
                problems.push(format!("service {name}: is a part of a sidecar"));
            }
            Some(_) if services.get(network::holder(name)).and_then(Value::as_mapping).and_then(standing::owner).is_some() => {
                problems.push(format!("service {name}: already has a sidecar"));
            }
            Some(_) if wanted.contains(name) => {}
            Some(_) => wanted.push(name.clone()),
        }
    }
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// Every reason why these services cannot have a sidecar.
pub(super) fn refusals(document: &Mapping, services: &Mapping, wanted: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let volumes = document.get("volumes").and_then(Value::as_mapping);
    let has_volume = |name: &str| volumes.is_some_and(|volumes| volumes.contains_key(name));
    for name in wanted {
        let generated = parts::names(name);
        for taken in generated.iter().filter(|generated| services.contains_key(generated.as_str())) {
            problems
                .push(format!("service {name}: its sidecar needs the name {taken}, which a service has; rename that"));
        }
        let identity = network::identity(name);
        if has_volume(&identity) {
            problems.push(format!(
                "service {name}: its sidecar needs the name {identity}, which a volume has; rename that"
            ));
        }
    }
    for (name, service) in services {
        let (Some(name), Some(service)) = (scalar(name), service.as_mapping()) else { continue };
        let is_wanted = wanted.contains(&name);
        let beside = namespace_of(service).filter(|owner| wanted.iter().any(|name| name == owner));
        let reasons = if is_wanted { of_service(service) } else { Vec::new() };
        problems.extend(reasons.into_iter().map(|reason| format!("service {name}: {reason}")));
        if (is_wanted || beside.is_some()) && runs_as_proxy(service) {
            problems.push(format!(
                "service {name}: runs as user {PROXY_USER}, whose connections are the sidecar's own and go past it \
                 (Istio's IST0144); choose another user"
            ));
        }
        if let Some(base) = extended_here(service).filter(|base| !is_wanted && wanted.contains(base)) {
            problems.push(format!(
                "service {name}: extends {base}, which gets a sidecar, and would inherit half of it; write out what it inherits"
            ));
        }
    }
    problems
}

fn of_service(service: &Mapping) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(mode) = service.get("network_mode").or_else(|| service.get("net")) {
        let mode = scalar(mode).unwrap_or_default();
        reasons.push(format!(
            "has network_mode {mode:?} already; a sidecar needs a network namespace of its own: remove that line, or name \
             the service that it joins"
        ));
    }
    if service.contains_key("extends") {
        reasons.push(
            "uses extends, and what it inherits is not seen here; run this on the output of `docker compose config`"
                .to_owned(),
        );
    }
    let deploy = service.get("deploy");
    if deploy.and_then(|deploy| deploy.get("mode")).and_then(Value::as_str) == Some("global") {
        reasons.push(
            "has deploy.mode: global; a sidecar holds one network namespace, so there can be one of it".to_owned(),
        );
    }
    let replicas = deploy.and_then(|deploy| deploy.get("replicas")).map(|count| ("deploy.replicas", count));
    let scale = service.get("scale").map(|count| ("scale", count));
    for (key, count) in replicas.into_iter().chain(scale) {
        let count = scalar(count).unwrap_or_default();
        if !["0", "1"].contains(&count.as_str()) {
            reasons.push(format!(
                "has {key}: {count}; a fixed holder of the network namespace cannot be scaled: write 1, or services with \
                 names of their own"
            ));
        }
    }
    for (written, target) in published(service) {
        if let Some(own) = OWN_PORTS.iter().find(|own| target.contains(own)) {
            reasons.push(format!("publishes {written}, but port {own} is the sidecar's own; let the app use another"));
        }
    }
    reasons
}

/// What the author should know.
pub(super) fn warnings(services: &Mapping, wanted: &[String]) -> Vec<String> {
    let mut warnings = Vec::new();
    for name in wanted {
        let Some(service) = services.get(name.as_str()).and_then(Value::as_mapping) else { continue };
        let mut warn = |text: &str| warnings.push(format!("service {name}: {text}"));
        if service.get("privileged").is_some_and(|value| value.as_bool() != Some(false)) {
            warn("is privileged and can step around its sidecar");
        } else if texts(service.get("cap_add")).any(|capability| {
            let capability = capability.to_ascii_uppercase();
            ["ALL", "NET_ADMIN", "SYS_ADMIN"].contains(&capability.strip_prefix("CAP_").unwrap_or(&capability))
        }) {
            warn("has a capability (cap_add) with which it can step around its sidecar");
        }
        if service.get("user").and_then(scalar).is_some_and(|user| user.contains('$')) {
            warn("has a variable as its user; with 1337 its connections would go past the sidecar");
        }
        if texts(service.get("ports")).chain(texts(service.get("expose"))).any(|port| port.ends_with("/udp"))
            || sequence(service.get("ports")).any(|port| port.get("protocol").and_then(Value::as_str) == Some("udp"))
        {
            warn("has UDP ports, which are not captured: no policy holds there");
        }
    }
    warnings
}

/// Takes out of the hosts what two services answer to: the address would belong to either, and each has its own name.
pub(super) fn keep_unambiguous_hosts(services: &Mapping, meshed: &mut [&mut Meshed]) {
    let mut all: Vec<String> = Vec::new();
    for service in meshed.iter() {
        all.extend(service.hosts.iter().cloned());
    }
    for (name, service) in services {
        // The holder of a namespace answers to the names of the service that it belongs to.
        let is_part = service.as_mapping().and_then(standing::owner).is_some();
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
        // A variable of compose is not known here; the service's own name leads to the same addresses.
        service
            .hosts
            .retain(|host| *host == own || (is_host(host) && all.iter().filter(|other| *other == host).count() == 1));
    }
}

/// The service whose network namespace this one joins.
pub(super) fn namespace_of(service: &Mapping) -> Option<&str> {
    service.get("network_mode")?.as_str()?.strip_prefix("service:")
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

/// The ports of the container that are published, with how they are written.
fn published(service: &Mapping) -> Vec<(String, std::ops::RangeInclusive<u16>)> {
    sequence(service.get("ports"))
        .filter_map(|port| {
            let written = scalar(port).or_else(|| port.get("target").and_then(scalar))?;
            let target = written.rsplit(':').next()?.split('/').next()?;
            let (first, last) = target.split_once('-').unwrap_or((target, target));
            Some((written.clone(), first.parse().ok()?..=last.parse().ok()?))
        })
        .collect()
}

fn sequence(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    value.and_then(Value::as_sequence).into_iter().flatten()
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = String> {
    sequence(value).filter_map(scalar)
}
