//! Sidecars that an earlier run has put into the file: new ones are told of them, and they of the new ones.

use serde_yaml::{Mapping, Value};

use super::network::{self, Meshed};
use super::yaml::{scalar, write};
use super::{LABEL, Plan, parts, proxy_file};

/// A service that has its sidecar already.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) meshed: Meshed,
    config: Mapping,
}

/// The services that have one, or why one of them cannot be told of others.
pub(super) fn all(document: &Mapping, services: &Mapping) -> Result<Vec<Standing>, Vec<String>> {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (name, holder) in services {
        let (Some(name), Some(holder)) = (scalar(name), holder.as_mapping()) else { continue };
        let Some(of) = owner(holder).filter(|of| name == network::holder(of)) else { continue };
        match Standing::read(&of, holder, document, services) {
            Ok(one) => found.push(one),
            Err(problem) => problems.push(format!(
                "service {of}: already has a sidecar, but {problem}; run this on the original, with all services that shall \
                 have one"
            )),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// The service that a part was made for.
pub(super) fn owner(service: &Mapping) -> Option<String> {
    service.get("labels").and_then(|labels| labels.get(LABEL)).and_then(scalar)
}

impl Standing {
    fn read(name: &str, holder: &Mapping, document: &Mapping, services: &Mapping) -> Result<Self, String> {
        let [_, _, proxy] = parts::names(name);
        let text =
            services.get(proxy.as_str()).and_then(|proxy| proxy.get("environment")?.get(parts::CONFIG)?.as_str());
        let text = text.ok_or_else(|| format!("its {proxy} has no configuration in {}", parts::CONFIG))?;
        let config: Mapping =
            serde_yaml::from_str(&text.replace("$$", "$")).map_err(|error| format!("{proxy}: {error}"))?;
        let at =
            |[section, key]: [&str; 2]| config.get(section).and_then(|value| value.get(key)).and_then(Value::as_str);
        if config.get("identity").and_then(|identity| identity.get("ca")).is_none() {
            return Err(format!("{proxy} has its certificate from elsewhere than the authority"));
        }
        let (Some(domain), Some(namespace)) = (at(["mesh", "trustDomain"]), at(["workload", "namespace"])) else {
            return Err(format!("the configuration of {proxy} does not say who it is"));
        };
        let id = format!("spiffe://{domain}/ns/{namespace}/sa/{name}");
        let meshed = Meshed::new(name, id, holder, document, &[]).map_err(|problems| problems.join(", "))?;
        Ok(Self { meshed, config })
    }

    /// Its configuration gets a route to each of the new ones that it can reach.
    pub(super) fn meet(&self, new: &[&Meshed], plan: &mut Plan) -> Result<(), String> {
        let new: Vec<_> = new.iter().filter(|peer| peer.shares_a_network_with(&self.meshed)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut config = self.config.clone();
        let routes = config.get_mut("outbound").and_then(|outbound| outbound.get_mut("routes"));
        let Some(Value::Sequence(routes)) = routes else {
            return Err("the configuration of its sidecar has no list of routes".to_owned());
        };
        routes.extend(new.into_iter().map(|peer| proxy_file::route(peer)));
        let environment = parts::environment(&write(&Value::Mapping(config)));
        let [_, intercept, proxy] = parts::names(&self.meshed.name);
        for part in [intercept, proxy] {
            plan.set(&part, "environment", Some(environment.clone()));
        }
        Ok(())
    }
}
