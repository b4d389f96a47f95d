//! Who is authorized, and what policies that are not enforced say about a connection.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portcullis_policy::authorization::{Authorization, AuthorizationPolicy, Facts, MatchedRule};
use portcullis_policy::{Answer, EffectivePolicy, Mode, Shadow};
use portcullis_telemetry::{ConnRecord, Ending, ShadowDecision, ShadowFinding};
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
        sni: record.sni.as_deref(),
    }
}

/// Returns an ending if the connection is not authorized, and records the policy that says so. `mode` is that of the port:
/// under DISABLE nobody has an identity.
pub(crate) fn check(policy: &EffectivePolicy, mode: Mode, record: &mut ConnRecord, port: u16) -> Option<Ending> {
    let facts = facts(record, port);
    let facts = if mode == Mode::Disable { facts.anonymous() } else { facts };
    let (reason, label, rule, error) = match policy.authorizer().authorize(&facts) {
        Authorization::Unrestricted | Authorization::Allowed(_) => return None,
        Authorization::Denied(by) => {
            (Reason::AuthorizationDenied, Some(Arc::clone(by.label)), number(by.rule), location(&by))
        }
        Authorization::NotAllowed(policies) => {
            (Reason::AuthorizationNotAllowed, only(policies), None, not_allowed(policies))
        }
    };
    if let Some(label) = label {
        record.policy = label;
    }
    record.rule = rule;
    Some(Ending::new(reason, Some(error)))
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
        if let Some(by) = policy.authorizer().audit(&facts) {
            self.record.report_shadow(&ShadowFinding {
                decision: ShadowDecision::Audit,
                reason: AUDIT_RULE,
                candidate: None,
                mode: self.record.mode,
                policy: by.label,
                rule: number(by.rule),
                detail: Some(location(&by)),
            });
        }
        for Shadow { name, kind, policy } in policy.shadows() {
            let mode = policy.mode(self.port).mode.as_str();
            let candidate = kind.is_candidate().then_some(&**name);
            let finding = |decision, reason: Reason, policy, rule, detail| ShadowFinding {
                decision,
                reason: reason.label(),
                candidate,
                mode,
                policy,
                rule,
                detail,
            };
            let found = match policy.answer(self.opening, &facts) {
                Answer::Unknown => continue,
                Answer::Allow if self.allowed => continue,
                Answer::Allow => {
                    let decided = policy.mode(self.port);
                    self.record.report_shadow(&ShadowFinding {
                        decision: ShadowDecision::WouldAllow,
                        reason: "-",
                        candidate,
                        mode,
                        policy: &decided.label,
                        rule: None,
                        detail: None,
                    });
                    continue;
                }
                _ if !self.allowed => continue,
                Answer::Refuse(refusal, by) => {
                    finding(ShadowDecision::WouldRefuse, Reason::from(refusal), &*by.label, None, written(by))
                }
                Answer::Unauthenticated(by) => {
                    finding(ShadowDecision::WouldRefuse, Reason::NoCertificate, &*by.label, None, written(by))
                }
                Answer::Deny(Authorization::Denied(by)) => {
                    let (rule, detail) = (number(by.rule), Some(location(&by)));
                    finding(ShadowDecision::WouldDeny, Reason::AuthorizationDenied, &**by.label, rule, detail)
                }
                Answer::Deny(Authorization::NotAllowed(policies)) => {
                    let label = only(policies);
                    let label = label.as_deref().unwrap_or("-");
                    let detail = Some(not_allowed(policies));
                    let reason = Reason::AuthorizationNotAllowed;
                    self.record.report_shadow(&finding(ShadowDecision::WouldDeny, reason, label, None, detail));
                    continue;
                }
                // These allow.
                Answer::Deny(Authorization::Unrestricted | Authorization::Allowed(_)) => continue,
            };
            self.record.report_shadow(&found);
        }
    }
}

/// The reason of [`ShadowDecision::Audit`].
pub(crate) const AUDIT_RULE: &str = "audit_rule";

fn number(index: usize) -> Option<u16> {
    u16::try_from(index).ok()
}

fn location(by: &MatchedRule<'_>) -> String {
    let MatchedRule { policy, rule, line, .. } = by;
    format!("rule {rule} of AuthorizationPolicy {} ({}:{line})", policy.label(), policy.file)
}

fn written(by: &portcullis_policy::Decided) -> Option<String> {
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
