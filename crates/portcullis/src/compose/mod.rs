//! Sidecars for services of a compose file: the file in, the changed file out. No IO.
//!
//! The app keeps its name and everything that is not network; its network namespace goes to a service of its own
//! (`NAME-net`), so that the rules in it are there before the app is, and stay when the app is replaced. One authority gives
//! all sidecars their certificates. A file that has sidecars and authority already is added to.

mod authority;
mod check;
mod network;
mod parts;
mod proxy_file;
mod standing;
#[cfg(test)]
mod tests;
mod yaml;

use portcullis_identity::TrustDomain;
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

use self::authority::Authority;
use self::network::Meshed;
use self::yaml::scalar;

/// On everything that is generated; its value is the service it belongs to.
const LABEL: &str = "portcullis.sidecar-of";

/// What to add, and how.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) services: Vec<String>,
    pub(crate) namespace: String,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) image: String,
    /// Folder of the policies, as the compose file names it.
    pub(crate) policies: String,
}

impl Request {
    fn spiffe_id(&self, service: &str) -> String {
        format!("spiffe://{}/ns/{}/sa/{service}", self.trust_domain, self.namespace)
    }
}

/// One key of an existing service: its new value, or none if it goes.
#[derive(Debug)]
struct Change {
    service: String,
    key: &'static str,
    to: Option<Value>,
}

/// What has to be done to a file.
#[derive(Debug)]
pub(crate) struct Plan {
    /// By the service that they belong to.
    parts: Vec<(String, Vec<(String, Value)>)>,
    changes: Vec<Change>,
    /// Services that belong to none of the file.
    further: Vec<(String, Value)>,
    volumes: Vec<(String, Value)>,
    /// What the author should know; not in the way.
    pub(crate) warnings: Vec<String>,
}

/// Reads a compose file: anchors and merge keys are resolved.
pub(crate) fn read(text: &str) -> Result<Mapping, String> {
    let mut document: Value = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    document.apply_merge().map_err(|error| format!("a merge key (<<): {error}"))?;
    match document {
        Value::Mapping(document) => Ok(document),
        _ => Err("is no compose file: a mapping with services is expected".to_owned()),
    }
}

/// What has to be done, or every reason why it cannot be.
pub(crate) fn plan(document: &Mapping, request: &Request) -> Result<Plan, Vec<String>> {
    let services = check::services(document)?;
    let authority = Authority::of(document, &services, request)?;
    let wanted = check::wanted(&services, &authority, request)?;
    let mut standing = standing::all(document, &services)?;
    let mut problems = check::refusals(document, &services, &wanted);
    let mut meshed = Vec::new();
    for name in &wanted {
        let Some(original) = services.get(name.as_str()).and_then(Value::as_mapping) else { continue };
        match Meshed::new(name, request.spiffe_id(name), original, document, &wanted) {
            Ok(service) => meshed.push((service, original)),
            Err(more) => problems.extend(more),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let all = meshed.iter_mut().map(|(service, _)| service).chain(standing.iter_mut().map(|one| &mut one.meshed));
    check::keep_unambiguous_hosts(&services, &mut all.collect::<Vec<_>>());

    let mut plan = Plan {
        parts: Vec::new(),
        changes: Vec::new(),
        further: Vec::new(),
        volumes: Vec::new(),
        warnings: check::warnings(&services, &wanted),
    };
    let new: Vec<&Meshed> = meshed.iter().map(|(service, _)| service).collect();
    authority.serve(&new, &services, request, &mut plan);
    for one in &standing {
        one.meet(&new, &mut plan).map_err(|error| vec![format!("service {}: {error}", one.meshed.name)])?;
    }
    for (service, original) in &meshed {
        let peers = new.iter().copied().chain(standing.iter().map(|one| &one.meshed));
        let peers = peers.filter(|peer| peer.shares_a_network_with(service));
        let config = proxy_file::text(service, peers, &authority.address(), request);
        plan.parts.push((service.name.clone(), parts::all(service, original, &config, request)));
        plan.volumes.push((service.identity(), parts::identity_volume()));
        plan.change(service, original);
    }
    for (name, service) in &services {
        let (Some(name), Some(service)) = (scalar(name), service.as_mapping()) else { continue };
        plan.follow(&name, service, &wanted).map_err(|error| vec![format!("service {name}: {error}")])?;
    }
    Ok(plan)
}

impl Plan {
    fn set(&mut self, service: &str, key: &'static str, to: Option<Value>) {
        self.changes.push(Change { service: service.to_owned(), key, to });
    }

    /// The app itself loses what belongs to the network namespace.
    fn change(&mut self, service: &Meshed, original: &Mapping) {
        for key in network::MOVED {
            if original.contains_key(*key) {
                self.set(&service.name, key, None);
            }
        }
        if service.net_sysctls.is_some() {
            self.set(&service.name, "sysctls", service.other_sysctls.clone());
        }
        self.set(&service.name, "network_mode", Some(service.network_mode()));
    }

    /// Whatever a service has to do with meshed ones goes on: it waits for sidecars, and finds the moved namespaces.
    fn follow(&mut self, name: &str, service: &Mapping, wanted: &[String]) -> Result<(), String> {
        let is_wanted = |name: &str| wanted.iter().any(|other| other == name);
        let mut more = Vec::new();
        let mut sidecar_of = is_wanted(name).then(|| name.to_owned());
        if let Some(links) = service.get("links") {
            let texts = links.as_sequence().into_iter().flatten().filter_map(scalar);
            let to: Vec<_> = texts.map(|link| network::linked(&link).0.to_owned()).filter(|to| is_wanted(to)).collect();
            if !to.is_empty() && sidecar_of.is_none() {
                self.set(name, "links", Some(network::moved_links(links, wanted)?));
            }
            // A link is a dependency as well, and it was one on the app.
            more.extend(to.into_iter().map(|to| (to, "service_started")));
        }
        if let Some(beside) = check::namespace_of(service).filter(|beside| is_wanted(beside)) {
            self.set(name, "network_mode", Some(Value::from(format!("service:{}", network::holder(beside)))));
            more.push((beside.to_owned(), "service_started"));
            sidecar_of = Some(beside.to_owned());
        }
        if let Some(owner) = &sidecar_of {
            let [.., proxy] = parts::names(owner);
            more.push((proxy, "service_healthy"));
        }
        if more.is_empty() {
            return Ok(());
        }
        let mut depends_on = long_form(service.get("depends_on"))?;
        for (to, condition) in more {
            if !depends_on.contains_key(to.as_str()) {
                depends_on.insert(Value::from(to), parts::condition(condition));
            }
        }
        self.set(name, "depends_on", Some(Value::Mapping(depends_on)));
        Ok(())
    }

    /// The whole file, with the sidecars in it.
    pub(crate) fn whole(&self, document: &Mapping) -> String {
        let mut document = document.clone();
        let mut services = Mapping::new();
        for (name, service) in document.get("services").and_then(Value::as_mapping).into_iter().flatten() {
            let mut service = service.clone();
            for change in self.changes.iter().filter(|change| name.as_str() == Some(change.service.as_str())) {
                let Some(keys) = service.as_mapping_mut() else { continue };
                match &change.to {
                    Some(value) => drop(keys.insert(Value::from(change.key), value.clone())),
                    None => drop(keys.shift_remove(change.key)),
                }
            }
            services.insert(name.clone(), service);
            services.extend(self.parts_of(name));
        }
        services.extend(self.further());
        document.insert(Value::from("services"), Value::Mapping(services));
        let mut volumes = document.get("volumes").and_then(Value::as_mapping).cloned().unwrap_or_default();
        volumes.extend(self.volumes());
        document.insert(Value::from("volumes"), Value::Mapping(volumes));
        yaml::write(&Value::Mapping(document))
    }

    /// Only what differs, as an override file for Compose v2.
    pub(crate) fn overlay(&self) -> String {
        let mut services = Mapping::new();
        for change in &self.changes {
            let value = match (&change.to, change.key) {
                (None, _) => tagged("!reset", Value::Null),
                // Lists and mappings are merged with the original's otherwise.
                (Some(value), "links" | "sysctls") => tagged("!override", value.clone()),
                (Some(value), _) => value.clone(),
            };
            let service =
                services.entry(Value::from(change.service.as_str())).or_insert_with(|| Value::Mapping(Mapping::new()));
            if let Some(keys) = service.as_mapping_mut() {
                keys.insert(Value::from(change.key), value);
            }
        }
        services.extend(
            self.parts
                .iter()
                .flat_map(|(_, parts)| parts)
                .map(|(name, part)| (Value::from(name.as_str()), part.clone())),
        );
        services.extend(self.further());
        yaml::write(&yaml::map([
            ("services", Value::Mapping(services)),
            ("volumes", Value::Mapping(self.volumes().collect())),
        ]))
    }

    fn parts_of(&self, name: &Value) -> impl Iterator<Item = (Value, Value)> {
        let own = self.parts.iter().filter(move |(owner, _)| name.as_str() == Some(owner));
        own.flat_map(|(_, parts)| parts).map(|(name, part)| (Value::from(name.as_str()), part.clone()))
    }

    fn further(&self) -> impl Iterator<Item = (Value, Value)> {
        self.further.iter().map(|(name, service)| (Value::from(name.as_str()), service.clone()))
    }

    fn volumes(&self) -> impl Iterator<Item = (Value, Value)> {
        self.volumes.iter().map(|(name, volume)| (Value::from(name.as_str()), volume.clone()))
    }
}

fn tagged(tag: &str, value: Value) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value }))
}

/// `depends_on` as a mapping: only there a condition can be said.
fn long_form(written: Option<&Value>) -> Result<Mapping, String> {
    match written {
        None | Some(Value::Null) => Ok(Mapping::new()),
        Some(Value::Mapping(written)) => Ok(written.clone()),
        Some(Value::Sequence(names)) => {
            Ok(names.iter().map(|name| (name.clone(), parts::condition("service_started"))).collect())
        }
        Some(_) => Err("depends_on is neither a list nor a mapping".to_owned()),
    }
}
