//! What policies say about a connection as a whole.
//!
//! The policy in force and its shadows answer by the same functions and about the same facts, so the answer of a shadow is what
//! enforcing it would have done, as far as the connection showed what that depends on.

use portcullis_wire::Opening;

use crate::authorization::{Authorization, Facts};
use crate::decide::{Action, Refusal, decide};
use crate::mode::Mode;
use crate::resolve::{Decided, EffectivePolicy};

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
