//! The JSON that a sidecar answers commands with: `/observations`, `/recent` and what belongs to them, as types that both sides
//! share.
//!
//! Compatibility: fields are added, never renamed or given another meaning. A reader ignores fields that it does not know; those
//! that an older sidecar does not write have a default. Words of closed sets are enums, with `Unknown` for a word that a newer
//! sidecar may write.

mod connection;
mod mode;
mod observations;
mod proxy;
mod recent;
mod timestamp;

pub use connection::{Direction, Transport};
pub use mode::{DecidingPolicy, Mode, PortMode};
pub use observations::{Client, DayCount, Observation, Observations, RefusedFor};
pub use proxy::ProxyInfo;
pub use recent::{EndedConnection, Recent, Tls};
pub use timestamp::Timestamp;
