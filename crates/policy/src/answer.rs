//! What policies say about a connection as a whole.
//!
//! The policy in force and its shadows answer by the same functions and about the same facts, so the answer of a shadow is what
//! enforcing it would have done, as far as the connection showed what that depends on.

use std::convert::Infallible;
use std::sync::Arc;

use portcullis_wire::Opening;

use crate::authorization::{Authorization, AuthorizationPolicy, Facts, KnownFacts, MatchedRule, OpenRule};
use crate::decide::{Action, Refusal, decide};
use crate::mode::Mode;
use crate::resolve::EffectivePolicy;

/// What policies say about one connection.
#[derive(Clone, Copy, Debug)]
pub enum Answer<'p> {
    /// It is let through.
    Allow,
    /// Its first bytes are refused by the mode of the port.
    Refuse(Refusal),
    /// The mode demands mTLS of a client that proved no identity.
    Unauthenticated,
    /// A rule of a DENY policy matches.
    Denied(MatchedRule<'p>),
    /// ALLOW policies apply, and none matches.
    NotAllowed(&'p [Arc<AuthorizationPolicy>]),
    /// It depends on bytes that were not looked at, since the mode in force is DISABLE.
    Unknown,
}

impl EffectivePolicy {
    /// What enforcing this policy does with a connection. `opening` is `None` if its first bytes were not inspected.
    #[must_use]
    pub fn answer(&self, opening: Option<Opening>, facts: &Facts<'_>) -> Answer<'_> {
        let authorize = |facts: &Facts<'_>| Ok::<_, Infallible>(self.authorizer().authorize(facts));
        match self.answer_by(opening, facts, authorize) {
            Ok(answer) => answer,
            Err(never) => match never {},
        }
    }

    /// The same about a connection of which not every fact is known.
    ///
    /// # Errors
    /// If the answer depends on what is not known: the rule that compares it.
    pub fn answer_known(
        &self,
        opening: Option<Opening>,
        facts: &Facts<'_>,
        known: KnownFacts,
    ) -> Result<Answer<'_>, OpenRule<'_>> {
        // Nobody reads a server name there.
        let sni = known.sni || self.mode(facts.port).mode == Mode::Disable;
        let known = KnownFacts { sni, ..known };
        self.answer_by(opening, facts, |facts| self.authorizer().authorize_known(facts, known))
    }

    fn answer_by<'p, E>(
        &'p self,
        opening: Option<Opening>,
        facts: &Facts<'_>,
        authorize: impl Fn(&Facts<'_>) -> Result<Authorization<'p>, E>,
    ) -> Result<Answer<'p>, E> {
        let mode = self.mode(facts.port).mode;
        let authorize = |facts: &Facts<'_>| {
            Ok(match authorize(facts)? {
                Authorization::Unrestricted | Authorization::Allowed(_) => Answer::Allow,
                Authorization::Denied(by) => Answer::Denied(by),
                Authorization::NotAllowed(policies) => Answer::NotAllowed(policies),
            })
        };
        if mode == Mode::Disable {
            return authorize(&facts.uninspected());
        }
        let Some(opening) = opening else { return Ok(Answer::Unknown) };
        // Only under STRICT the first byte of TLS counts as TLS.
        let opening = if mode == Mode::Permissive && opening == Opening::UnreadTls { Opening::Plain } else { opening };
        match decide(mode, opening) {
            Action::Terminate if facts.peer.is_none() => Ok(Answer::Unauthenticated),
            Action::Terminate => authorize(facts),
            Action::PassThrough(_) => authorize(&facts.anonymous()),
            Action::Refuse(refusal) => Ok(Answer::Refuse(refusal)),
        }
    }
}
