//! What policies that are not enforced say about a connection: counted, and one line at info.

use std::borrow::Cow;
use std::time::Instant;

use crate::facts::RuleIndex;
use crate::printable::printable;
use crate::record::ConnRecord;

/// What a policy that is not enforced says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ShadowDecision {
    /// An AuthorizationPolicy would refuse the connection.
    WouldDeny,
    /// A PeerAuthentication would refuse the connection.
    WouldRefuse,
    /// The connection, which was refused, would be let through.
    WouldAllow,
    /// A rule with action AUDIT matched.
    Audit,
}

impl ShadowDecision {
    /// Every decision, for the documentation.
    pub const ALL: [Self; 4] = [Self::WouldDeny, Self::WouldRefuse, Self::WouldAllow, Self::Audit];

    /// The value of the field and label `decision`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WouldDeny => "would_deny",
            Self::WouldRefuse => "would_refuse",
            Self::WouldAllow => "would_allow",
            Self::Audit => "audit",
        }
    }

    const fn message(self) -> &'static str {
        match self {
            Self::WouldDeny | Self::WouldRefuse => "connection would be refused",
            Self::WouldAllow => "connection would be allowed",
            Self::Audit => "connection audited",
        }
    }
}

/// One answer of a policy that is not enforced.
#[derive(Clone, Debug)]
pub struct ShadowFinding<'a> {
    /// What it says.
    pub decision: ShadowDecision,
    /// Why, in the words that refused connections have.
    pub reason: &'static str,
    /// The candidate set that it belongs to; `None` for policies in the folder in force.
    pub candidate: Option<&'a str>,
    /// The mode that the port would have.
    pub mode: &'static str,
    /// The policy, `namespace/name`, or `-`.
    pub policy: &'a str,
    /// The rule of an AuthorizationPolicy, by its index.
    pub rule: Option<RuleIndex>,
    /// Where the policy is written, and what else helps.
    pub detail: Option<String>,
}

impl ConnRecord {
    /// Counts and logs what a policy that is not enforced says about this connection.
    pub fn report_shadow(&self, finding: &ShadowFinding<'_>) {
        let ShadowFinding { decision, reason, candidate, mode, policy, rule, detail } = finding;
        let port = self.port.map_or(Cow::Borrowed("-"), |port| self.metrics.ports.label(port));
        let word = decision.as_str();
        match candidate {
            None => self.metrics.decisions.with(&[&port, mode, word, reason, policy, self.transport]).add(1),
            Some(name) => {
                self.metrics
                    .candidate_decisions
                    .with(&[name, &port, mode, word, reason, policy, self.transport])
                    .add(1);
            }
        }
        // A lot of clients of one kind must not fill the log.
        if !self.metrics.rate_limit.admits(word, Instant::now()) {
            return;
        }
        tracing::info!(
            target: "policy",
            conn_id = self.id(),
            direction = self.direction.as_str(),
            "src.addr" = %self.src_addr,
            "src.identity" = self.peer.as_ref().map(display),
            "dst.addr" = self.dst_addr.map(display),
            port = self.port,
            mode,
            candidate,
            policy = %policy,
            rule = rule.map(RuleIndex::get),
            transport = self.transport,
            decision = word,
            reason,
            sni = self.sni.name().map(printable).as_deref(),
            detail = detail.as_deref().map(printable).as_deref(),
            "{}", decision.message()
        );
    }
}
