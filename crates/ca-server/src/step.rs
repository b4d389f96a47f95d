//! The request of `ca rotate-root` to a running CA.

use portcullis_ca::rotation::Phase;
use serde::{Deserialize, Serialize};

/// The requested step.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Change nothing; return the status.
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

/// A step, and whose reports are not required.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Request {
    /// Which.
    pub step: Step,
    /// SPIFFE IDs of callers that cannot report their bundles, or instances by their sixteen digits.
    pub assume: Vec<String>,
}
