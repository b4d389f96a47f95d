//! The changes to a compose file.

use serde_yaml::{Mapping, Value};

use crate::error::Reason;
use crate::names::{SidecarNames, joined_namespace};
use crate::service::{Link, MeshedService, NETWORK_KEYS, moved_links};
use crate::spec::{self, NamedService};
use crate::yaml::scalar;

/// A new value of one key of an existing service.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) service: String,
    pub(crate) key: &'static str,
    /// None removes the key.
    pub(crate) value: Option<Value>,
}

/// The services of one sidecar.
#[derive(Debug)]
pub(crate) struct Sidecar {
    /// The service that it belongs to.
    pub(crate) owner: String,
    pub(crate) services: Vec<NamedService>,
}

/// A volume to declare.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) definition: Value,
}

/// The changes that add sidecars to a compose file.
#[derive(Debug)]
pub struct Plan {
    pub(crate) document: Mapping,
    pub(crate) sidecars: Vec<Sidecar>,
    pub(crate) changes: Vec<Change>,
    /// Services that belong to no sidecar.
    pub(crate) services: Vec<NamedService>,
    pub(crate) volumes: Vec<Volume>,
    warnings: Vec<String>,
}

impl Plan {
    pub(crate) fn new(document: Mapping, warnings: Vec<String>) -> Self {
        let (sidecars, changes) = (Vec::new(), Vec::new());
        Self { document, sidecars, changes, services: Vec::new(), volumes: Vec::new(), warnings }
    }

    /// Warnings for the author of the file.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    pub(crate) fn set(&mut self, service: &str, key: &'static str, value: Option<Value>) {
        self.changes.push(Change { service: service.to_owned(), key, value });
    }

    pub(crate) fn add_sidecar(&mut self, owner: &str, services: Vec<NamedService>) {
        self.sidecars.push(Sidecar { owner: owner.to_owned(), services });
    }

    pub(crate) fn add_service(&mut self, service: NamedService) {
        self.services.push(service);
    }

    pub(crate) fn add_volume(&mut self, name: &str, definition: Value) {
        self.volumes.push(Volume { name: name.to_owned(), definition });
    }

    /// Removes from the app what belongs to the network namespace, and lets it join the holder's.
    pub(crate) fn move_network(&mut self, service: &MeshedService, original: &Mapping) {
        for key in NETWORK_KEYS {
            if original.contains_key(*key) {
                self.set(&service.name, key, None);
            }
        }
        if service.sysctls.network.is_some() {
            self.set(&service.name, "sysctls", service.sysctls.app.clone());
        }
        self.set(&service.name, "network_mode", Some(service.network_mode()));
    }

    /// Redirects what refers to a selected service: links and joined namespaces lead to the holder, and whatever shares a
    /// namespace waits for the sidecar.
    pub(crate) fn redirect_references(
        &mut self,
        name: &str,
        service: &Mapping,
        selected: &[String],
    ) -> Result<(), Reason> {
        let is_selected = |name: &str| selected.iter().any(|other| other == name);
        let mut added = Vec::new();
        let mut sidecar_of = is_selected(name).then(|| name.to_owned());
        if let Some(links) = service.get("links") {
            let texts = links.as_sequence().into_iter().flatten().filter_map(scalar);
            let targets = texts.map(|text| Link::parse(&text).service.to_owned());
            let targets: Vec<_> = targets.filter(|target| is_selected(target)).collect();
            if !targets.is_empty() && sidecar_of.is_none() {
                self.set(name, "links", Some(moved_links(links, selected)?));
            }
            // A link is a dependency as well, and it depended on the app.
            added.extend(targets.into_iter().map(|target| (target, "service_started")));
        }
        if let Some(joined) = joined_namespace(service).filter(|joined| is_selected(joined)) {
            let holder = SidecarNames::of(joined).holder;
            self.set(name, "network_mode", Some(Value::from(format!("service:{holder}"))));
            added.push((joined.to_owned(), "service_started"));
            sidecar_of = Some(joined.to_owned());
        }
        if let Some(owner) = &sidecar_of {
            added.push((SidecarNames::of(owner).ready, "service_completed_successfully"));
        }
        if added.is_empty() {
            return Ok(());
        }
        let mut depends_on = long_form(service.get("depends_on"))?;
        for (target, condition) in added {
            if !depends_on.contains_key(target.as_str()) {
                depends_on.insert(Value::from(target), spec::condition(condition));
            }
        }
        self.set(name, "depends_on", Some(Value::Mapping(depends_on)));
        Ok(())
    }
}

/// `depends_on` as a mapping: only this form has conditions.
fn long_form(written: Option<&Value>) -> Result<Mapping, Reason> {
    match written {
        None | Some(Value::Null) => Ok(Mapping::new()),
        Some(Value::Mapping(written)) => Ok(written.clone()),
        Some(Value::Sequence(names)) => {
            Ok(names.iter().map(|name| (name.clone(), spec::condition("service_started"))).collect())
        }
        Some(_) => Err(Reason::NeitherListNorMapping("depends_on")),
    }
}
