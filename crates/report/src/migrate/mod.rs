//! The way to STRICT as a state machine: which step a mesh is in, which namespace may be switched next, and what blocks the others.
//!
//! Pure: policies, a readiness report and the time in, a [`Migration`] out. The steps are those of Istio's guide: PERMISSIVE for the mesh,
//! watch, STRICT for one namespace after another, watch each, STRICT for the mesh. A namespace is suggested only if nobody who was let
//! through without mTLS would lose access, everything that has to be known is known, and its sidecars have the policies of the folder in force.

mod build;
mod model;
mod report;
mod step;

pub use model::{Blocker, Flags, Forced, Namespace, Options, Standing, Suggestion};
pub use step::{Migration, Step};
