//! Who breaks if a workload switches to STRICT: per port, from what its sidecars observed.

mod build;
mod clients;
mod confidence;
mod fix;
mod model;
mod report;

pub use confidence::{Confidence, Level};
pub use model::{Client, Options, Port, Readiness, Refused, Verdict, What};
