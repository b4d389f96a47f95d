//! What `ca rotate-root` asks a running CA for.

use portcullis_ca::rotation::Phase;
use serde::{Deserialize, Serialize};

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Nothing; say where it stands.
    Status,
    /// Publish the root of the CA in `next/` too.
    Start,
    /// Sign with the new CA.
    Promote,
    /// Publish the new root alone.
    Finish,
    /// Go back: from `promoted` to `started`, from there to the old root alone.
    Abort,
}

impl Step {
    /// The step that goes on from a phase.
    pub(crate) const fn after(phase: Phase) -> Self {
        match phase {
            Phase::Started => Self::Promote,
            Phase::Promoted | Phase::Finished => Self::Finish,
        }
    }
}

/// A step, and whose word is not waited for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Request {
    /// Which.
    pub step: Step,
    /// SPIFFE IDs of callers that cannot say which bundles they use, or instances by their sixteen digits.
    pub assume: Vec<String>,
}
