//! The JSON that a sidecar answers commands with: `/observations`, `/recent` and what commands read of other pages, as types that both sides
//! share.
//!
//! Compatibility: fields are added, never renamed or given another meaning. A reader ignores fields that it does not know; those
//! that an older sidecar does not write have a default. Words of closed sets are enums, with `Unknown` for a word that a newer
//! sidecar may write.

mod changes;
mod config_dump;
mod connection;
mod explanation;
mod mode;
mod observations;
mod pages;
mod proxy;
mod recent;
mod status;
mod timestamp;

pub use changes::{Change, Changes};
pub use config_dump::{
    ConfigDump, DecidedMode, GatewayListener, GatewayListeners, GatewayTls, InboundListener, InboundListeners,
    Listener, Modes, OutboundListeners, Route, TlsCompat, TlsSettings, Upstream,
};
pub use connection::{Direction, Transport};
pub use explanation::{Explanation, IgnoredPolicy, Rung};
pub use mode::{DecidingPolicy, Mode, PortMode};
pub use observations::{Client, DayCount, Observation, Observations, RefusedFor};
pub use pages::{
    AuthorizationPolicy, BreakGlass, Certificate, Certs, OpenConnection, OpenConnections, PeerAuthentication, Policies,
    Problem, TrustDomainRoots, WorkloadCertificate,
};
pub use proxy::ProxyInfo;
pub use recent::{EndedConnection, Recent, Tls};
pub use status::{
    Capture, CaptureListener, CaptureRules, ConfigChange, ConfigFile, IdentitySource, IgnoredFile, Ledger, NamedPlace,
    Status,
};
pub use timestamp::Timestamp;
