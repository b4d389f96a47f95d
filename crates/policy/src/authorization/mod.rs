//! Istio's AuthorizationPolicy for connections: who may talk to a workload once it is known who they are.
//!
//! A document is read strictly (`read`, `conditions`) into a [`AuthorizationPolicy`]. For one workload the policies are
//! selected, their trust domains expanded and their HTTP fields resolved, and filed by what connections look up
//! ([`Authorizer`]). A decision compares [`Facts`] with the rules that can match.

mod authorizer;
mod conditions;
mod facts;
mod hasher;
mod http;
mod index;
mod overview;
mod partial;
mod pattern;
mod read;
mod resource;
mod rule;
mod trust_domains;

pub use authorizer::{Authorization, Authorizer, DENIED, MatchedRule, NOT_ALLOWED};
pub use facts::Facts;
pub use overview::{AppliedPolicy, AuthorizationOverview, IgnoredAuthorizationPolicy};
pub use partial::{KnownFacts, OpenRule};
pub use pattern::{NamespaceMatch, ServiceAccount, StringMatch};
pub(crate) use read::read;
pub use resource::{AuthorizationAction, AuthorizationPolicy};
pub use rule::{Condition, Rule, Values};
