//! The proxy's own configuration file (`portcullis proxy --config FILE`).
//!
//! The file is parsed once into [`Settings`], whose types admit only valid values: inner code never re-checks them. Every
//! problem of the file is reported in one run, with its position. Every default of the product exists once, in
//! [`defaults`], with its unit and its reason. The file is static: a change to it requires a restart (policies and
//! certificates are reloaded while the proxy runs).
//!
//! This crate does no IO: the caller reads the file and passes its text.

mod admin;
mod checks;
pub mod defaults;
mod fields;
mod gateway;
mod identity;
mod inbound;
mod kubernetes;
mod ledger;
mod model;
mod outbound;
mod paths;
mod precedence;
mod read;
mod telemetry;
mod value;

pub use admin::AdminSocket;
pub use gateway::{Gateway, GatewayCertificate, GatewayListener, GatewayRoute, GatewayTls};
pub use identity::{CaClient, Identity, IdentityFiles, IdentitySource, WorkloadApi};
pub use inbound::{IdentityTlv, Inbound, InboundPort, Protocol};
pub use kubernetes::{Kubernetes, KubernetesStartup};
pub use ledger::LedgerSettings;
pub use model::{Limits, Mesh, Sandbox, Settings, Timeouts, Tls};
pub use outbound::{
    Downgrade, HostPort, Otherwise, Outbound, Route, RouteMode, Upstream, UpstreamMode, UpstreamTarget,
};
pub use paths::{NamedPath, PathUse, named_paths};
pub use portcullis_policy::{Cidr, CidrError};
pub use precedence::Origin;
pub use read::{NAME_RULE, is_name, read};
pub use telemetry::{OTLP_VARIABLES, Otlp, OtlpHeaders, OtlpLayer, OtlpProtocol, OtlpUrl, Telemetry, VariableError};

#[cfg(test)]
mod tests;
