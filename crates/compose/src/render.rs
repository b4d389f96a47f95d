//! The text of a plan: the whole file, or an override file.

use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

use crate::compact::{compact, is_ours};
use crate::names::owner;
use crate::plan::Plan;
use crate::record::{KEY, Record};
use crate::spec::NamedService;
use crate::yaml::{in_line, map, scalar, write};

impl Plan {
    /// The whole file with the sidecars in it.
    #[must_use]
    pub fn merged_file(&self) -> String {
        write(&Value::Mapping(self.merged(None)))
    }

    /// The same, with the record of what it was made from at its top.
    #[must_use]
    pub fn recorded_file(&self, record: &Record) -> String {
        write(&Value::Mapping(self.merged(Some(record))))
    }

    fn merged(&self, record: Option<&Record>) -> Mapping {
        let mut document = self.document.clone();
        let mut services = Mapping::new();
        for (name, service) in document.get("services").and_then(Value::as_mapping).into_iter().flatten() {
            let mut service = service.clone();
            for change in self.changes.iter().filter(|change| name.as_str() == Some(change.service.as_str())) {
                let Some(keys) = service.as_mapping_mut() else { continue };
                match &change.value {
                    Some(value) => drop(keys.insert(Value::from(change.key), value.clone())),
                    None => drop(keys.shift_remove(change.key)),
                }
            }
            services.insert(name.clone(), service);
            let own = self.sidecars.iter().filter(|sidecar| name.as_str() == Some(sidecar.owner.as_str()));
            services.extend(own.flat_map(|sidecar| entries(&sidecar.services)));
        }
        services.extend(entries(&self.services));
        let mut volumes = document.get("volumes").and_then(Value::as_mapping).cloned().unwrap_or_default();
        volumes.extend(self.volume_entries().map(|(name, definition)| (name, in_line(definition))));
        let mut written = Mapping::new();
        if let Some(record) = record {
            written.insert(Value::from(KEY), record.value());
        }
        compact(&mut services, &self.generated(), &mut written);
        document.insert(Value::from("services"), Value::Mapping(services));
        document.insert(Value::from("volumes"), Value::Mapping(volumes));
        // What an earlier run has written once is written anew.
        let is_new = |key: &Value| !(is_ours(key) || record.is_some() && key.as_str() == Some(KEY));
        written.extend(document.into_iter().filter(|(key, _)| is_new(key)));
        written
    }

    /// The names of all generated services: those of this run, and those that the file had already.
    fn generated(&self) -> Vec<String> {
        let services = self.document.get("services").and_then(Value::as_mapping).into_iter().flatten();
        let earlier = services.filter(|(_, service)| service.as_mapping().and_then(owner).is_some());
        let earlier = earlier.filter_map(|(name, _)| scalar(name));
        let new = self.sidecars.iter().flat_map(|sidecar| &sidecar.services).chain(&self.services);
        earlier.chain(new.map(|service| service.name.clone())).collect()
    }

    /// Only the differences, as an override file for Compose v2.
    #[must_use]
    pub fn override_file(&self) -> String {
        let mut services = Mapping::new();
        for change in &self.changes {
            let value = match (&change.value, change.key) {
                (None, _) => tagged("!reset", Value::Null),
                // Without the tag, Compose would merge lists and mappings with those of the original.
                (Some(value), "links" | "sysctls") => tagged("!override", value.clone()),
                (Some(value), _) => value.clone(),
            };
            let service =
                services.entry(Value::from(change.service.as_str())).or_insert_with(|| Value::Mapping(Mapping::new()));
            if let Some(keys) = service.as_mapping_mut() {
                keys.insert(Value::from(change.key), value);
            }
        }
        services.extend(self.sidecars.iter().flat_map(|sidecar| entries(&sidecar.services)));
        services.extend(entries(&self.services));
        let volumes = self.volume_entries().collect();
        write(&map([("services", Value::Mapping(services)), ("volumes", Value::Mapping(volumes))]))
    }

    fn volume_entries(&self) -> impl Iterator<Item = (Value, Value)> {
        self.volumes.iter().map(|volume| (Value::from(volume.name.as_str()), volume.definition.clone()))
    }
}

fn entries(services: &[NamedService]) -> impl Iterator<Item = (Value, Value)> {
    services.iter().map(|service| (Value::from(service.name.as_str()), service.definition.clone()))
}

fn tagged(tag: &str, value: Value) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value }))
}
