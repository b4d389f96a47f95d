//! Istio's PeerAuthentication and AuthorizationPolicy as pure functions: documents in, the mode of each port and who is
//! authorized out, and why. ServiceEntry, WorkloadEntry and DestinationRule become the service directory of one client
//! ([`directory`]). IstioOperator documents of the same files are read by `portcullis-istio` ([`PolicySet::mesh`]).
//!
//! No IO, clock, lock or log in here. Documents are read strictly: an unknown field, a misspelt mode or a port map
//! without a selector rejects the whole set, because a misspelt `selector` would turn an exception for one workload into
//! one for a namespace. Everything that is wrong is reported in one run, with file, line and column.

mod answer;
pub mod authorization;
mod break_glass;
mod cidr;
mod conflict;
mod decide;
mod decided;
pub mod diff;
pub mod directory;
mod documentation;
mod evaluation;
mod explain;
mod kind;
mod load;
mod metadata;
mod mode;
mod read_peer_authentication;
mod resolve;
mod resource;
mod set;
mod source;
mod spec;
mod workload;

pub use answer::Answer;
pub use break_glass::{BreakGlass, MAX_SECONDS as MAX_BREAK_GLASS_SECONDS, OWNER, REASON, UNTIL};
pub use cidr::{Cidr, CidrError};
pub use decide::{Action, PassThroughReason, Refusal, admit, decide};
pub use decided::{Decided, DecidedBy, Scope};
pub use documentation::{Documentation, Expiry};
pub use evaluation::Evaluation;
pub use explain::{Explanation, IgnoredPolicy, Rung, TimeLeft, explain};
pub use kind::{resource_kinds, resource_versions};
pub use load::Loaded;
pub use mode::Mode;
pub use portcullis_yaml::Diagnostic;
pub use resolve::{EffectivePolicy, Shadow, ShadowKind};
pub use resource::PeerAuthentication;
pub use set::PolicySet;
pub use source::{ParsedSource, Source};
pub use workload::{MeshSettings, Workload};
