//! The pages of the admin address, each made for one request, from what is in force at that moment.
//!
//! JSON in ztunnel's camelCase; keys are in alphabetical order, so that two dumps can be compared line by line. Nothing here
//! reads a file, and no page has access to a key: they show the configuration, the policies and public certificates.

pub(super) mod certs;
pub(super) mod config;
pub(super) mod connections;
pub(super) mod dashboard;
pub(super) mod observations;
pub(super) mod policies;
pub(super) mod process;
pub(super) mod status;

use serde::Serialize;

/// A page: pretty JSON and a newline.
pub(super) fn body(value: &impl Serialize) -> String {
    let mut text =
        serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": {:?}}}", error.to_string()));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_keys_in_alphabetical_order_and_ends_with_a_newline() {
        assert_eq!(body(&serde_json::json!({"b": 1, "a": []})), "{\n  \"a\": [],\n  \"b\": 1\n}\n");
    }
}
