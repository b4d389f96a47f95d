//! What one set answers about a connection, and what decides that.

use serde::Serialize;

use crate::answer::Answer;
use crate::authorization::{Authorization, AuthorizationAction};
use crate::decided::Decided;
use crate::diff::class::{Client, Connection};
use crate::mode::Mode;
use crate::resolve::EffectivePolicy;

/// What one set answers, and what decides that.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessDecision {
    /// Whether the connection is let through.
    pub allow: bool,
    /// Why, as a stable word.
    pub reason: &'static str,
    /// The policy, for the witness; none where no policy applies, or where several ALLOW policies do and none matches.
    pub decided_by: Option<DecidedByPolicy>,
}

/// The policy that decides.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct DecidedByPolicy {
    /// `PeerAuthentication` or `AuthorizationPolicy`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Of an AuthorizationPolicy.
    pub action: Option<AuthorizationAction>,
    /// The rule, from 0; none of a PeerAuthentication, or where no rule of the only ALLOW policy matches.
    pub rule: Option<usize>,
    /// The file that it was read from.
    pub file: String,
    /// The line of the rule or of the policy, from 1.
    pub line: u32,
}

pub(super) fn verdict(policy: &EffectivePolicy, connection: &Connection) -> AccessDecision {
    let facts = connection.facts();
    let mode = policy.mode(connection.port);
    match policy.answer(Some(connection.client.opening()), &facts) {
        Answer::Allow => {
            // What a pass without an identity is decided by, is decided without it.
            let is_verified = mode.mode != Mode::Disable && connection.client == Client::Mtls;
            let facts = match (mode.mode, is_verified) {
                (Mode::Disable, _) => facts.uninspected(),
                (_, true) => facts,
                (_, false) => facts.anonymous(),
            };
            authorized(policy.authorizer().authorize(&facts))
        }
        Answer::Denied(by) => authorized(Authorization::Denied(by)),
        Answer::NotAllowed(policies) => authorized(Authorization::NotAllowed(policies)),
        Answer::Refuse(_) | Answer::Unauthenticated | Answer::Unknown => refused_by_mode(mode),
    }
}

/// Plaintext, or TLS without a certificate of the mesh, on a STRICT port.
fn refused_by_mode(decided: &Decided) -> AccessDecision {
    let by = &decided.by;
    let decided_by = match (&by.namespace, &by.name, &by.file, by.line) {
        (Some(namespace), Some(name), Some(file), Some(line)) => Some(DecidedByPolicy {
            kind: "PeerAuthentication",
            namespace: namespace.clone(),
            name: name.clone(),
            action: None,
            rule: None,
            file: file.clone(),
            line,
        }),
        _ => None,
    };
    AccessDecision { allow: false, reason: "mtls_required", decided_by }
}

fn authorized(authorization: Authorization<'_>) -> AccessDecision {
    let (policy, rule, line) = match authorization {
        Authorization::Allowed(by) | Authorization::Denied(by) => (Some(by.policy), Some(by.rule), by.line),
        Authorization::NotAllowed([policy]) => (Some(&**policy), None, policy.line),
        Authorization::NotAllowed(_) | Authorization::Unrestricted => (None, None, 0),
    };
    let decided_by = policy.map(|policy| DecidedByPolicy {
        kind: "AuthorizationPolicy",
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        action: Some(policy.action),
        rule,
        file: policy.file.clone(),
        line,
    });
    AccessDecision { allow: authorization.is_allowed(), reason: authorization.reason(), decided_by }
}
