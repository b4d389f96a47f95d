//! The mode of a port, and what decides it.

use serde::{Deserialize, Serialize};

use crate::timestamp::Timestamp;

/// What a port accepts, in Istio's words.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// Mutual TLS only.
    Strict,
    /// Mutual TLS and plaintext.
    Permissive,
    /// No mutual TLS.
    Disable,
    /// A word that this version does not know, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Mode {
    /// The word in policies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The mode of one port of the workload.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PortMode {
    /// The port of the workload (not of a service). `null`: every other port.
    pub port: Option<u16>,
    /// Its mode.
    pub mode: Mode,
    /// The policy that decides it.
    pub decided_by: DecidingPolicy,
    /// `protocol: server-first`: under PERMISSIVE a client that stays silent costs a wait, which STRICT does not need.
    pub server_first: bool,
}

/// The policy that decides a mode.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DecidingPolicy {
    /// `port`, `workload`, `namespace`, `mesh`, `default` or `break-glass`.
    pub scope: String,
    /// Its namespace; none for the default.
    pub namespace: Option<String>,
    /// Its name; none for the default.
    pub name: Option<String>,
    /// The file that it was read from.
    pub file: Option<String>,
    /// Its line, from 1.
    pub line: Option<u32>,
    /// Who wanted it: its annotation `portcullis/owner`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why: its annotation `portcullis/reason`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until when, as it is written: its annotation `portcullis/expires`, or `portcullis/until` of break-glass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The moment at which that is over; none if what is written is no date.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl DecidingPolicy {
    /// `namespace/name`, or `default`.
    #[must_use]
    pub fn label(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => "default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_are_missing_or_new_are_no_error() {
        let port: PortMode =
            serde_json::from_str(r#"{"port": 80, "mode": "AMBIENT", "decidedBy": {"scope": "mesh", "since": 1}}"#)
                .unwrap();
        assert_eq!((port.port, port.mode, port.decided_by.label().as_str()), (Some(80), Mode::Unknown, "default"));
        assert_eq!(serde_json::to_value(Mode::Strict).unwrap(), Mode::Strict.as_str());
    }
}
