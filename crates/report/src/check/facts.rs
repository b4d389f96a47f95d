//! What checks are made of.

use portcullis_api::{Certs, Observations, Policies, ProxyInfo, Status, Timestamp};

/// What was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The time here.
    pub now: Timestamp,
    /// The version of the command.
    pub version: String,
    /// Every sidecar that was asked.
    pub sidecars: Vec<Sidecar>,
    /// Containers without a sidecar on the networks of sidecars; none if no engine was asked.
    pub containers: Option<Vec<String>>,
    /// Services with a sidecar that a container engine runs; none if no engine was asked, an error if it gave no details.
    pub meshed: Option<Result<Vec<MeshedService>, String>>,
}

/// A service of a compose project that has a sidecar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MeshedService {
    /// The project.
    pub project: String,
    /// The service.
    pub service: String,
    /// How it runs.
    pub runs: Runs,
    /// What that means.
    pub explanation: String,
    /// The command that mends it.
    pub remedy: String,
}

/// How a service runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Runs {
    /// Behind its sidecar.
    Captured,
    /// Not at all, as somebody or itself wanted it.
    Stopped,
    /// Otherwise: beside its sidecar, or without a network.
    Wrong,
}

/// A sidecar that was asked.
#[derive(Clone, Debug)]
pub struct Sidecar {
    /// What the caller calls it if it says nothing: its address, or its name and address.
    pub label: String,
    /// What it says, or why it says nothing.
    pub answer: Result<Known, NoAnswer>,
}

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoAnswer {
    /// In words.
    pub message: String,
    /// It answers, and is too old or something else.
    pub is_other: bool,
}

/// What a sidecar says.
#[derive(Clone, Debug)]
pub struct Known {
    /// What the caller calls it, unlike any other: `cart.shop`, with its address if several have that name.
    pub label: String,
    /// Which one it is.
    pub proxy: ProxyInfo,
    /// The time here before it was asked for its clock.
    pub asked_at: Timestamp,
    /// The time here when it had answered.
    pub answered_at: Timestamp,
    /// `/policies`.
    pub policies: Policies,
    /// `/certs`.
    pub certs: Certs,
    /// Whether its chain leads to a root of its own bundle, as a peer verifies it, whatever the time is: the caller verifies it.
    pub chain: Result<(), String>,
    /// `/observations`; none from a version that does not have it.
    pub observations: Option<Observations>,
    /// `/status`; none from a version that does not have it.
    pub status: Option<Status>,
}
