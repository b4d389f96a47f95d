//! What operators see: one record for each connection, which becomes one access-log line and a few counters.
//!
//! A [`ConnRecord`] opens with the connection and ends exactly once: by [`ConnRecord::finish`], which consumes it, or by
//! its `Drop`, which writes that the connection ended with the process. So no connection leaves without a line, unless more are refused
//! than are logged one by one; then one line says how many.
//! Label values are closed sets or configured names, never text that a peer chose.

mod access;
mod access_format;
mod access_line;
mod access_outputs;
mod captured;
mod claims;
mod connection;
mod edge;
mod envoy;
mod event;
mod export;
mod facts;
mod family;
mod filter;
mod finish;
mod identity;
mod ledger_metrics;
pub mod log;
mod metrics;
mod names;
mod observe;
mod open;
pub mod outcome;
mod output;
pub mod panics;
mod ports;
mod printable;
mod rate_limit;
mod recent;
mod record;
mod shadow;
mod state_metrics;
mod tcp;
mod tunnel;

pub use access_format::AccessLog;
pub use access_outputs::AccessOutputs;
pub use captured::CapturedAt;
pub use claims::{PeerClaims, TraceIds};
pub use connection::{Bytes, Direction, TlsFacts};
pub use export::{AccessEvent, AccessSink, SinkTotals, TlsOutcome};
pub use facts::{RuleIndex, ServerName};
pub use family::{Counter, CounterFamily};
pub use identity::IdentityMetrics;
pub use metrics::{Families, Metrics};
pub use names::{LocalWorkload, Service};
pub use open::OpenConnection;
pub use outcome::{ConnStage, Decision, Ending, Outcome, ResponseFlag};
pub use recent::{EndedConnections, RecentFilter};
pub use record::{ConnRecord, TunnelFacts};
pub use shadow::{ShadowDecision, ShadowFinding};
pub use state_metrics::{BufferMetrics, ReloadMetrics};
pub use tcp::MAX_PRINCIPALS;
pub use tunnel::{OpenTunnel, TunnelMetrics};
