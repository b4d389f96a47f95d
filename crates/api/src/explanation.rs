//! `/explain?port=N`: which policy holds for a port, and why not the others.

use serde::{Deserialize, Serialize};

use crate::{DecidingPolicy, Mode};

/// The answer for one port.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Explanation {
    /// The port that was asked for.
    pub port: u16,
    /// Its mode.
    pub mode: Mode,
    /// The policy that decided.
    pub decided_by: DecidingPolicy,
    /// The chosen policy of each scope: mesh, namespace, workload, port.
    pub ladder: Vec<Rung>,
    /// Every other policy.
    pub ignored: Vec<IgnoredPolicy>,
}

/// One step of the ladder.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Rung {
    /// The policy.
    #[serde(flatten)]
    pub by: DecidingPolicy,
    /// Its mode, or `UNSET`.
    pub mode: String,
    /// Whether it decided.
    pub applied: bool,
}

/// A policy that does not apply.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct IgnoredPolicy {
    /// The policy.
    #[serde(flatten)]
    pub by: DecidingPolicy,
    /// Why, as a word: `shadowed`, `other-namespace`, `selector-mismatch`, ...
    pub reason: String,
}
