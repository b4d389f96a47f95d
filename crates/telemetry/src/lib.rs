//! What operators see: one record for each connection, which becomes one access-log line and a few counters.
//!
//! A [`ConnRecord`] opens with the connection and ends exactly once: by [`ConnRecord::finish`], which consumes it, or by
//! its `Drop`, which writes that the connection ended with the process. So no connection leaves without a line, unless more are refused
//! than are logged one by one; then one line says how many.
//! Label values are closed sets or configured names, never text that a peer chose.

mod access;
mod envoy;
mod family;
mod filter;
mod flood;
mod identity;
pub mod log;
mod metrics;
mod names;
mod open;
mod output;
pub mod panics;
mod ports;
mod record;
mod tcp;

pub use access::AccessLog;
pub use family::{Counter, CounterFamily};
pub use identity::IdentityMetrics;
pub use metrics::{Families, Metrics, ReloadMetrics};
pub use names::{Own, Service};
pub use open::OpenConnection;
pub use record::{Bytes, ConnRecord, Decision, Direction, Ending, TlsFacts};
pub use tcp::{MAX_PRINCIPALS, ResponseFlag};
