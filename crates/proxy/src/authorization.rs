//! Who is authorized, and what policies that are not enforced say about a connection.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portcullis_policy::authorization::{Authorization, AuthorizationPolicy, Facts, MatchedRule};
use portcullis_policy::{Answer, Decided, EffectivePolicy, Mode, Shadow};
use portcullis_telemetry::{ConnRecord, Ending, RuleIndex, ServerName, ShadowDecision, ShadowFinding};
use portcullis_wire::Opening;

use crate::outcome::Reason;

/// How many ALLOW policies a refusal names.
const NAMED: usize = 5;

/// What rules are compared with.
pub(crate) fn facts(record: &ConnRecord, port: u16) -> Facts<'_> {
    let source = record.src_addr.ip();
    Facts {
        peer: record.peer.as_ref(),
        source,
        remote: source,
        destination: record.dst_addr.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.ip()),
        port,
        sni: record.sni.name(),
    }
}

/// Returns an ending if the connection is not authorized, and records the policy that says so. `mode` is that of the port:
/// under DISABLE nobody has an identity.
pub(crate) fn check(policy: &EffectivePolicy, mode: Mode, record: &mut ConnRecord, port: u16) -> Option<Ending> {
    let unknown_name = match record.sni {
        ServerName::Unread => Some("was not read when the port was DISABLE"),
        ServerName::Unusable => Some("is no name of a host"),
        ServerName::Absent | ServerName::Name(_) => None,
    };
    if let Some(why) = unknown_name.filter(|_| mode != Mode::Disable && policy.authorizer().reads_sni()) {
        let error = format!("rules compare the server name, and that of this connection {why}");
        return Some(Ending::new(Reason::AuthorizationNotAllowed, Some(error)));
    }
    let facts = facts(record, port);
    let facts = if mode == Mode::Disable { facts.uninspected() } else { facts };
    let denied = decide(policy, &facts)?;
    Some(denied.record(record))
}

/// Why a connection is not authorized.
pub(crate) struct Denied {
    reason: Reason,
    policy: Arc<str>,
    rule: Option<RuleIndex>,
    error: String,
}

impl Denied {
    /// Records the policy that says so.
    pub(crate) fn record(self, record: &mut ConnRecord) -> Ending {
        record.policy = self.policy;
        record.rule = self.rule;
        Ending::new(self.reason, Some(self.error))
    }
}

/// Asks the policies that are enforced.
pub(crate) fn decide(policy: &EffectivePolicy, facts: &Facts<'_>) -> Option<Denied> {
    let (reason, policy, rule, error) = match policy.authorizer().authorize(facts) {
        Authorization::Unrestricted | Authorization::Allowed(_) => return None,
        Authorization::Denied(by) => {
            (Reason::AuthorizationDenied, Arc::clone(by.label), RuleIndex::new(by.rule), location(&by))
        }
        Authorization::NotAllowed(policies) => {
            let label = only(policies).unwrap_or_else(|| "-".into());
            (Reason::AuthorizationNotAllowed, label, None, not_allowed(policies))
        }
    };
    Some(Denied { reason, policy, rule, error })
}

/// What is known of a connection about which policies that are not enforced are asked.
pub(crate) struct Observed<'r> {
    pub(crate) record: &'r ConnRecord,
    pub(crate) port: u16,
    /// `None`: the first bytes were not inspected.
    pub(crate) opening: Option<Opening>,
    /// Whether it was let through.
    pub(crate) allowed: bool,
}

impl Observed<'_> {
    /// Reports what AUDIT rules and shadows of the policy say, if there are any.
    pub(crate) fn report(&self, policy: &EffectivePolicy) {
        let facts = facts(self.record, self.port);
        report_audit(policy, self.record, &facts);
        for shadow in policy.shadows() {
            let decided = shadow.policy.mode(self.port);
            let found = difference(shadow.policy.answer(self.opening, &facts), decided, self.allowed);
            report_difference(self.record, shadow, decided.mode.as_str(), found);
        }
    }
}

/// Reports the same where PeerAuthentication does not apply.
pub(crate) fn report_without_mode(policy: &EffectivePolicy, record: &ConnRecord, facts: &Facts<'_>, allowed: bool) {
    report_audit(policy, record, facts);
    for shadow in policy.shadows() {
        let answer = match shadow.policy.authorizer().authorize(facts) {
            Authorization::Unrestricted | Authorization::Allowed(_) => Answer::Allow,
            Authorization::Denied(by) => Answer::Denied(by),
            Authorization::NotAllowed(policies) => Answer::NotAllowed(policies),
        };
        let found = difference(answer, shadow.policy.mode(facts.port), allowed);
        report_difference(record, shadow, "-", found);
    }
}

fn report_audit(policy: &EffectivePolicy, record: &ConnRecord, facts: &Facts<'_>) {
    if let Some(by) = policy.authorizer().audit(facts) {
        record.report_shadow(&ShadowFinding {
            decision: ShadowDecision::Audit,
            reason: AUDIT_RULE,
            candidate: None,
            mode: record.mode,
            policy: by.label,
            rule: RuleIndex::new(by.rule),
            detail: Some(location(&by)),
        });
    }
}

fn report_difference(record: &ConnRecord, shadow: &Shadow, mode: &'static str, found: Option<Difference<'_>>) {
    let Some(Difference { decision, reason, policy, rule, detail }) = found else { return };
    let candidate = shadow.kind.is_candidate().then_some(&*shadow.name);
    record.report_shadow(&ShadowFinding { decision, reason, candidate, mode, policy: &policy, rule, detail });
}

/// What a shadow decides otherwise.
struct Difference<'p> {
    decision: ShadowDecision,
    reason: &'static str,
    policy: Cow<'p, str>,
    rule: Option<RuleIndex>,
    detail: Option<String>,
}

/// Compares the answer of a shadow, whose mode for the port is `decided`, with what was done.
fn difference<'p>(answer: Answer<'p>, decided: &'p Decided, allowed: bool) -> Option<Difference<'p>> {
    let by_mode = |decision, reason: &'static str| Difference {
        decision,
        reason,
        policy: Cow::Borrowed(&*decided.label),
        rule: None,
        detail: written(decided),
    };
    Some(match (answer, allowed) {
        (Answer::Unknown, _) | (Answer::Allow, true) => return None,
        (Answer::Allow, false) => by_mode(ShadowDecision::WouldAllow, "-"),
        // Both refuse, if for different reasons.
        (_, false) => return None,
        (Answer::Refuse(refusal), true) => by_mode(ShadowDecision::WouldRefuse, Reason::from(refusal).label()),
        (Answer::Unauthenticated, true) => by_mode(ShadowDecision::WouldRefuse, Reason::NoCertificate.label()),
        (Answer::Denied(by), true) => Difference {
            decision: ShadowDecision::WouldDeny,
            reason: Reason::AuthorizationDenied.label(),
            policy: Cow::Borrowed(by.label),
            rule: RuleIndex::new(by.rule),
            detail: Some(location(&by)),
        },
        (Answer::NotAllowed(policies), true) => Difference {
            decision: ShadowDecision::WouldDeny,
            reason: Reason::AuthorizationNotAllowed.label(),
            policy: only(policies).map_or(Cow::Borrowed("-"), |label| Cow::Owned(label.to_string())),
            rule: None,
            detail: Some(not_allowed(policies)),
        },
    })
}

/// The reason of [`ShadowDecision::Audit`].
pub(crate) const AUDIT_RULE: &str = "audit_rule";

fn location(by: &MatchedRule<'_>) -> String {
    let MatchedRule { policy, rule, line, .. } = by;
    format!("rule {rule} of AuthorizationPolicy {} ({}:{line})", policy.label(), policy.file)
}

fn written(by: &Decided) -> Option<String> {
    let (file, line) = (by.by.file.as_ref()?, by.by.line?);
    Some(format!("PeerAuthentication {} ({file}:{line})", by.label))
}

/// The label of the policy, if there is only one that could have decided.
fn only(policies: &[Arc<AuthorizationPolicy>]) -> Option<Arc<str>> {
    match policies {
        [policy] => Some(policy.label().into()),
        _ => None,
    }
}

fn not_allowed(policies: &[Arc<AuthorizationPolicy>]) -> String {
    let mut text = "no rule matches of ".to_owned();
    for (n, policy) in policies.iter().take(NAMED).enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}{} ({}:{})", policy.label(), policy.file, policy.line);
    }
    if let Some(more) = policies.len().checked_sub(NAMED).filter(|more| *more > 0) {
        let _ = write!(text, " and {more} more");
    }
    text
}
