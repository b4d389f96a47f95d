//! A parsed compose file.

use serde_yaml::{Mapping, Value};

use crate::error::{Error, Problem};

/// A compose file whose anchors and merge keys are resolved.
#[derive(Clone, Debug)]
pub struct ComposeFile(Mapping);

impl ComposeFile {
    /// Reads the text of a compose file.
    ///
    /// # Errors
    /// If the text is not YAML, a merge key is wrong, or the document is not a mapping.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut document: Value = serde_yaml::from_str(text).map_err(Error::Syntax)?;
        document.apply_merge().map_err(Error::MergeKey)?;
        match document {
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
