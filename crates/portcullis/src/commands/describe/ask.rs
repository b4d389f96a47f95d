//! What a description is made of.

use portcullis_api::{Explanation, Observations, Policies};
use portcullis_discovery::{Sidecar, Unanswered};

/// The answers of one proxy.
pub(super) struct Answered {
    pub(super) seen: Observations,
    pub(super) policies: Policies,
    /// Of each port of `seen`.
    pub(super) explanations: Vec<Explanation>,
}

/// Asks one proxy.
pub(super) async fn ask(sidecar: Sidecar) -> Result<Answered, Unanswered> {
    let seen = sidecar.get::<Observations>("/observations").await?;
    let policies = sidecar.get("/policies").await?;
    let mut explanations = Vec::new();
    // A port that nothing names, for all others.
    for port in seen.ports.iter().map(|port| port.port.unwrap_or(u16::MAX)) {
        explanations.push(sidecar.get(&format!("/explain?port={port}")).await?);
    }
    Ok(Answered { seen, policies, explanations })
}
