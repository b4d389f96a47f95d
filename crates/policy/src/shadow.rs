//! What policies say about a connection as a whole, and what policies that are not in force would say about it.
//!
//! A shadow is a second effective policy: the same set with its dry-run policies in force, or a candidate set. It is asked
//! about the same facts as the one in force, so its answer is what enforcing it would have done, as far as the connection
//! showed what that depends on.

use std::sync::Arc;

use portcullis_wire::Opening;

use crate::authorization::{Authorization, Facts};
use crate::decide::{Action, Refusal, decide};
use crate::mode::Mode;
use crate::resolve::{Decided, EffectivePolicy};

/// A policy that is evaluated beside the one in force.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Shadow {
    /// `dry-run`, or the name of the candidate set.
    pub name: Arc<str>,
    /// Where it comes from.
    pub kind: ShadowKind,
    /// What it would enforce.
    pub policy: EffectivePolicy,
}

/// Where a shadow comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShadowKind {
    /// The set in force, with its dry-run policies.
    DryRun,
    /// Another set.
    Candidate,
}

impl ShadowKind {
    /// Whether it is another set.
    #[must_use]
    pub const fn is_candidate(self) -> bool {
        matches!(self, Self::Candidate)
    }
}

/// What policies say about one connection.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'p> {
    /// It is let through.
    Allow,
    /// Its first bytes are refused by the mode of the port.
    Refuse(Refusal, &'p Decided),
    /// The mode demands mTLS of a client that proved no identity.
    Unauthenticated(&'p Decided),
    /// It is not authorized.
    Deny(Authorization<'p>),
    /// It depends on bytes that were not looked at, since the mode in force is DISABLE.
    Unknown,
}

impl EffectivePolicy {
    /// What enforcing this policy does with a connection. `opening` is `None` if its first bytes were not inspected.
    #[must_use]
    pub fn answer(&self, opening: Option<Opening>, facts: &Facts<'_>) -> Answer<'_> {
        let decided = self.mode(facts.port);
        let authorize = |facts: &Facts<'_>| match self.authorizer().authorize(facts) {
            Authorization::Unrestricted | Authorization::Allowed(_) => Answer::Allow,
            denied => Answer::Deny(denied),
        };
        if decided.mode == Mode::Disable {
            return authorize(&facts.anonymous());
        }
        let Some(opening) = opening else { return Answer::Unknown };
        match decide(decided.mode, opening) {
            Action::Terminate if facts.peer.is_none() => Answer::Unauthenticated(decided),
            Action::Terminate => authorize(facts),
            Action::PassThrough(_) => authorize(&facts.anonymous()),
            Action::Refuse(refusal) => Answer::Refuse(refusal, decided),
        }
    }
}
