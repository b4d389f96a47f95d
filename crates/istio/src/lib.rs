//! Istio's settings for certificates: IstioOperator documents, environment variables and durations.
//!
//! - [`MeshConfig`] is what `spec.meshConfig` of an IstioOperator says about extra roots, lifetimes and key sizes. [`Operator`]
//!   reads one document, [`MeshConfig::merge`] joins several, [`ExtraRoots::check`] checks the certificates in it.
//! - [`AgentEnvironment`] holds the variables of `istio-agent`, [`IstiodVariables`] reads those of `istiod`.
//! - [`go_duration`] reads a duration as Go does.
//!
//! Guaranteed: each setting that works here and that Istio ignores is a warning, and so is each field of Istio that has no effect
//! here. Refused: an invalid value, and any restriction of a root that is not implemented, since the root would be trusted more
//! widely than its author intended.
//!
//! No IO, clock or log: the caller passes the text, a way to look up variables, and the parser of root certificates.

mod agent_environment;
mod extra_roots;
mod go_duration;
mod istiod;
mod mesh_config;
mod operator;
mod renewal;
mod variable;

pub use agent_environment::AgentEnvironment;
pub use extra_roots::{ExtraRoot, ExtraRoots, RootCertificate, RootError};
pub use go_duration::go_duration;
pub use istiod::IstiodVariables;
pub use mesh_config::{CaCertificates, Located, Location, MeshConfig};
pub use operator::{API_VERSION, Operator};
pub use renewal::Renewal;
pub use variable::VariableError;
