//! Lists of values, in the syntax of Istio's annotations.

use std::str::FromStr;

use thiserror::Error;

/// An invalid element of a list.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{text:?} is not {wanted}")]
pub struct ParseError {
    text: String,
    wanted: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, wanted: &'static str) -> Self {
        Self { text: text.to_owned(), wanted }
    }
}

/// Reads a comma-separated list. An empty text is an empty list.
///
/// # Errors
/// If an element cannot be read.
pub fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(str::parse).collect()
}
