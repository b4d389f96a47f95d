//! A parsed compose file.

use serde_yaml::{Mapping, Value};

use crate::error::{Error, Problem};
use crate::names::{SidecarNames, owner};

/// A compose file whose anchors and merge keys are resolved.
#[derive(Clone, Debug)]
pub struct ComposeFile(Mapping);

impl ComposeFile {
    /// Reads the text of a compose file.
    ///
    /// # Errors
    /// If the text is not YAML, a merge key is wrong, or the document is not a mapping.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.trim().is_empty() {
            return Err(Error::Empty);
        }
        let tabbed = || text.lines().position(|line| line.trim_start_matches(' ').starts_with('\t'));
        let mut document: Value = serde_yaml::from_str(text).map_err(|error| match (tabbed(), error.location()) {
            // The parser says it in its own words; a tab after that line is another matter.
            (Some(tab), Some(at)) if tab < at.line() => Error::Tab { line: tab.saturating_add(1) },
            _ => Error::Syntax(error),
        })?;
        document.apply_merge().map_err(Error::MergeKey)?;
        match document {
            Value::Mapping(document) if document.contains_key("include") => Err(Error::Refused(vec![Problem::Include])),
            Value::Mapping(document) => Ok(Self(document)),
            _ => Err(Error::NotAMapping),
        }
    }

    /// The whole document.
    pub(crate) const fn document(&self) -> &Mapping {
        &self.0
    }

    /// The services by name.
    pub(crate) fn services(&self) -> Result<&Mapping, Error> {
        let services = self.0.get("services").and_then(Value::as_mapping);
        services.ok_or_else(|| Error::Refused(vec![Problem::NoServices]))
    }

    /// Whether there is a service of this name.
    #[must_use]
    pub fn has_service(&self, name: &str) -> bool {
        self.service(name).is_some()
    }

    /// The services that have a sidecar in this file, in its order.
    #[must_use]
    pub fn with_sidecars(&self) -> Vec<String> {
        let services = self.0.get("services").and_then(Value::as_mapping).into_iter().flatten();
        let holders = services.filter_map(|(name, holder)| {
            let service = owner(holder.as_mapping()?)?;
            (name.as_str() == Some(SidecarNames::of(&service).holder.as_str())).then_some(service)
        });
        holders.collect()
    }

    /// The definition of a service.
    pub(crate) fn service(&self, name: &str) -> Option<&Mapping> {
        self.0.get("services")?.get(name)?.as_mapping()
    }

    /// Whether a volume of this name is declared.
    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.0.get("volumes").and_then(Value::as_mapping).is_some_and(|volumes| volumes.contains_key(name))
    }

    /// The declaration of a network.
    pub(crate) fn network(&self, key: &str) -> Option<&Value> {
        self.0.get("networks")?.get(key)
    }
}
