//! `/changes`: what changed while the sidecar ran.

use serde::{Deserialize, Serialize};

use crate::{ProxyInfo, Timestamp};

/// The last changes, the oldest first.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Changes {
    /// Whose they are.
    pub proxy: ProxyInfo,
    /// The changes.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// What, in words.
    pub what: String,
}
