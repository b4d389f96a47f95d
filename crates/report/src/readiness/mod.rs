//! Who breaks if a workload switches to STRICT: per port, from what its sidecars observed.

mod build;
mod clients;
mod confidence;
mod exception;
mod fix;
mod model;
mod report;
mod secured;

pub use confidence::{Confidence, Level};
pub use exception::Exception;
pub(crate) use exception::{is_of_workload, lacks};
pub use model::{Client, Options, Port, PortReadiness, Readiness, Refused, What};
