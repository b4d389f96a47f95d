//! What `replay` says.

use std::net::IpAddr;

use portcullis_api::{Timestamp, Transport};
use portcullis_policy::authorization::AuthorizationAction;
use portcullis_policy::{Evaluation, MeshSettings, PolicySet};
use serde::Serialize;

use crate::input::{Unanswered, WorkloadName};
use crate::status::Status;
use crate::window::Window;

/// What to replay, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options<'p> {
    /// The policies in force. Without them, what was let through counts as allowed.
    pub in_force: Option<&'p PolicySet>,
    /// The policies that may take their place, as a whole.
    pub new: &'p PolicySet,
    /// Settings of the mesh for sidecars that do not tell theirs.
    pub mesh: &'p MeshSettings,
    /// Which policies count.
    pub evaluation: Evaluation,
    /// The time before now that counts.
    pub window: Window,
    /// Workloads that were observed for less are named, and nothing is called safe.
    pub min_observation: u64,
    /// Only workloads of this namespace.
    pub namespace: Option<&'p str>,
    /// The reader's clock.
    pub now: Timestamp,
}

/// What other policies would have done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replay {
    /// Length of the window.
    pub window_seconds: u64,
    /// The moment up to which was observed.
    pub as_of: Timestamp,
    /// What it comes to.
    pub status: Status,
    /// Whether the policies in force were compared, or only what was let through.
    pub knows_policies_in_force: bool,
    /// How many connections were decided.
    pub connections: u64,
    /// Whose answer changes, or is not known: who loses first.
    pub items: Vec<Row>,
    /// Workloads that were observed for too short a time.
    pub too_short: Vec<TooShort>,
    /// Ports whose mode at the sidecar is not that of the policies in force: those are others, or not read yet.
    pub drift: Vec<Drift>,
    /// Sidecars that did not answer.
    pub unanswered: Vec<Unanswered>,
    /// Observations that were given up, so that connections are missing.
    pub evicted: u64,
}

/// A workload that was observed for too short a time.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TooShort {
    /// The workload.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// For how long, within the window.
    pub observed_seconds: u64,
}

/// A port whose mode at the sidecar is not that of the policies in force.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The workload.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// The port; none stands for every port without a mode of its own.
    pub port: Option<u16>,
    /// Its mode at the sidecar.
    pub observed: &'static str,
    /// Its mode by the policies.
    pub by_policies: &'static str,
}

/// One client at one port.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What happens to it.
    pub change: Change,
    /// The workload that it calls.
    #[serde(flatten)]
    pub workload: WorkloadName,
    /// The port.
    pub port: u16,
    /// How it is called.
    pub peer: String,
    /// The identity that it proved.
    pub identity: Option<String>,
    /// The address that it was seen with last, or that it is known by.
    pub address: Option<IpAddr>,
    /// How it speaks.
    pub transport: Transport,
    /// Its connections in the window.
    pub connections: u64,
    /// The last of them.
    pub last_seen: Timestamp,
    /// Why, as a stable word.
    pub reason: &'static str,
    /// The policies and rules that decide: of the new set for who loses, of the one in force for who gains.
    pub decided_by: Vec<Decider>,
    /// What is not known.
    pub note: Option<String>,
}

/// What happens to a client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Change {
    /// It was let through, and would be refused.
    #[serde(rename = "LOSES")]
    Loses,
    /// It depends on what was not recorded.
    #[serde(rename = "NOT DECIDED")]
    NotDecided,
    /// It was refused, and would be let through.
    #[serde(rename = "GAINS")]
    Gains,
}

impl Change {
    /// The word in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loses => "LOSES",
            Self::NotDecided => "NOT DECIDED",
            Self::Gains => "GAINS",
        }
    }
}

/// A policy, and the rule in it, that decides.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Decider {
    /// `PeerAuthentication` or `AuthorizationPolicy`.
    pub kind: &'static str,
    /// Its namespace; none for the default mode.
    pub namespace: Option<String>,
    /// Its name; none for the default mode.
    pub name: Option<String>,
    /// Of an AuthorizationPolicy.
    pub action: Option<AuthorizationAction>,
    /// The rule, from 0; none where no rule matches.
    pub rule: Option<usize>,
    /// The file that it was read from.
    pub file: Option<String>,
    /// The line of the rule or the policy, from 1.
    pub line: Option<u32>,
}
