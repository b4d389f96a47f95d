//! Fields of HTTP in a proxy that sees connections: what Istio's sidecar does with them on a TCP port.

use portcullis_yaml::{Cursor, Problems};

use crate::authorization::resource::AuthorizationAction;
use crate::authorization::rule::{Condition, Rule};

/// The rule as it is evaluated. ALLOW drops the whole rule, and so allows less; DENY and AUDIT drop the field, and so deny or
/// report more.
pub(super) fn without_http(rule: &Rule, action: AuthorizationAction) -> Option<Rule> {
    let is_http = |condition: &Condition| matches!(condition, Condition::Http(_));
    if !rule.conditions().any(is_http) {
        return Some(rule.clone());
    }
    if action == AuthorizationAction::Allow {
        return None;
    }
    let mut kept = rule.clone();
    for list in kept.from.iter_mut().chain(&mut kept.to).chain([&mut kept.when]) {
        list.retain(|condition| !is_http(condition));
    }
    Some(kept)
}

/// Warns about the fields of HTTP in a rule at `rule`.
pub(super) fn warn(rule: &Cursor<'_>, fields: &[Cursor<'_>], action: AuthorizationAction, warnings: &mut Problems) {
    match action {
        AuthorizationAction::Allow if fields.is_empty() => {}
        AuthorizationAction::Allow => {
            let message = "has a field of HTTP; this proxy sees connections, so the whole rule never matches";
            rule.report("http-rule-never-matches", message, warnings);
        }
        AuthorizationAction::Deny | AuthorizationAction::Audit => {
            let message = "is about HTTP; this proxy sees connections, so the rule matches without regard to it";
            fields.iter().for_each(|field| field.report("http-field-ignored", message, warnings));
        }
    }
}
