//! One environment variable.

use portcullis_yaml::printable;

/// A variable whose value cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{name}: \"{}\" {expected}", printable(value))]
pub struct VariableError {
    /// The name of the variable.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The problem, and a valid value.
    pub expected: &'static str,
}

/// A variable, and what its values must be.
#[derive(Clone, Copy)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    /// The end of the error message.
    pub(crate) expected: &'static str,
}

impl Variable {
    /// The parsed value. An empty variable counts as unset, as in Istio.
    pub(crate) fn read<T>(
        self,
        lookup: &impl Fn(&str) -> Option<String>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, VariableError> {
        let Some(value) = lookup(self.name).filter(|value| !value.is_empty()) else { return Ok(None) };
        match parse(&value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(VariableError { name: self.name, value, expected: self.expected }),
        }
    }
}
