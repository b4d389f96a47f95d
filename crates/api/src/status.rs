//! `/status`: what a sidecar knows of itself and no other page says: what `portcullis check` evaluates.

use serde::{Deserialize, Serialize};

use crate::{ProxyInfo, Timestamp};

/// What a sidecar knows of itself.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Whose it is.
    pub proxy: ProxyInfo,
    /// What readiness waits for, in words. Empty: it is ready.
    pub pending: Vec<String>,
    /// The file that it was started with.
    pub config_file: ConfigFile,
    /// Redirected connections.
    pub capture: Capture,
    /// Where its certificates come from.
    pub identity: IdentitySource,
    /// What the policy folder has and is not read; none without a folder.
    pub ignored_files: Option<Vec<IgnoredFile>>,
    /// Workloads and services of the directory without a sidecar: connections to them are plaintext.
    pub without_sidecar: Vec<NamedPlace>,
    /// What is remembered of connections.
    pub ledger: Ledger,
}

/// The configuration of a sidecar.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ConfigFile {
    /// Its path, or where else it is from.
    pub source: String,
    /// How it compares with what the sidecar started with.
    pub change: ConfigChange,
    /// Why it cannot be read.
    pub problem: Option<String>,
}

/// How a configuration compares with what a sidecar started with.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ConfigChange {
    /// It is the same.
    Unchanged,
    /// It is another one, which takes a restart.
    Changed,
    /// It cannot be read.
    Unreadable,
    /// A word that this version does not know, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Transparent listeners, and what is known of the rules that redirect connections to them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Capture {
    /// `inbound.transparent`.
    pub inbound: Option<CaptureListener>,
    /// `outbound.transparent`.
    pub outbound: Option<CaptureListener>,
    /// The rules, compared with those that `intercept install` makes of this configuration.
    pub rules: CaptureRules,
    /// What differs, or why they cannot be read.
    pub detail: Option<String>,
}

/// A listener for redirected connections.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CaptureListener {
    /// Its address.
    pub listen: String,
    /// When a connection for another address arrived here last: a rule redirected it.
    pub captured_at: Option<Timestamp>,
}

/// What the kernel has.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CaptureRules {
    /// Exactly these rules.
    AsPlanned,
    /// None.
    Missing,
    /// Others.
    Different,
    /// They cannot be read: that takes a capability that a sidecar usually does not have.
    #[default]
    #[serde(other)]
    Unknown,
}

/// Where certificates come from.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IdentitySource {
    /// The key in `identity`: `files`, `ca` or `workloadApi`; none without an identity.
    pub kind: Option<String>,
    /// What it is, in words.
    pub name: String,
    /// When the certificate in force was put in force.
    pub renewed_at: Option<Timestamp>,
    /// How many attempts in a row brought none.
    pub consecutive_failures: u32,
    /// Why the last attempt failed, or why newer files are not in force.
    pub problem: Option<crate::Problem>,
}

/// A file of the policy folder that is not read.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct IgnoredFile {
    /// The file.
    pub file: String,
    /// `hidden` or `extension`.
    pub reason: String,
}

/// Something with a name that is written in a file.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NamedPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// What is remembered of connections.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ledger {
    /// `ledger.folder`; none: it is in memory.
    pub folder: Option<String>,
    /// It is on disk.
    pub is_persistent: bool,
    /// How many observations it has.
    #[serde(rename = "pairs")]
    pub observations: u64,
    /// How many were given up to stay below the limit.
    pub evicted: u64,
    /// How many attempts to write it failed.
    pub write_failures: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_another_version_is_read() {
        let text =
            r#"{"capture": {"rules": "nftables2", "inbound": {}}, "configFile": {"change": "renamed"}, "more": 1}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.capture.rules, CaptureRules::Unknown);
        assert_eq!(status.config_file.change, ConfigChange::Unknown);
        assert_eq!((status.capture.inbound.unwrap().captured_at, status.ignored_files), (None, None));
        assert_eq!(serde_json::to_value(CaptureRules::AsPlanned).unwrap(), "asPlanned");
    }
}
