//! Istio's PeerAuthentication as pure functions: documents in, the mode of each port out, and why. Beside it, what an
//! IstioOperator says of certificates ([`MeshConfig`]).
//!
//! No IO, clock, lock or log in here. Documents are read strictly: an unknown field, a misspelt mode or a port map
//! without a selector rejects the whole set, because a misspelt `selector` would turn an exception for one workload into
//! one for a namespace. Everything that is wrong is reported in one run, with file, line and column.

mod conflict;
mod decide;
mod diagnostic;
mod explain;
mod go_duration;
mod kind;
mod load;
mod mesh_config;
mod metadata;
mod mode;
mod operator;
mod reason;
mod resolve;
mod resource;
mod source;
mod spec;
mod workload;

pub use decide::{Action, NoTls, admit, decide};
pub use diagnostic::Diagnostic;
pub use explain::{Explanation, IgnoredPolicy, Rung, explain};
pub use go_duration::go_duration;
pub use load::{Loaded, PolicySet};
pub use mesh_config::{CaCertificates, MeshConfig, Place, Placed};
pub use mode::Mode;
pub use reason::{Decision, Reason};
pub use resolve::{Decided, DecidedBy, EffectivePolicy, Scope};
pub use resource::PeerAuthentication;
pub use source::{ParsedSource, Source};
pub use workload::{MeshSettings, Workload};
