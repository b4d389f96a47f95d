//! `/policies`, `/explain` and the effective modes: what is in force, and which policy decided it.

use std::collections::BTreeMap;

use portcullis_config::Settings;
use portcullis_policy::authorization::AuthorizationPolicy;
use portcullis_policy::{BreakGlass, Decided, EffectivePolicy, Mode, PeerAuthentication, PolicySet};
use portcullis_reload::{Problem, ReloadStatus};
use serde_json::{Value, json};

use crate::daemon::effective::named_ports;
use crate::daemon::format::system_time;

/// Istio's word for a mode that a policy leaves open.
const UNSET: &str = "UNSET";

/// The page, also a part of `/config_dump`. Without a policy folder there is no status.
pub(in crate::daemon) fn policies(
    settings: &Settings,
    set: &PolicySet,
    status: Option<&ReloadStatus>,
    hash: Option<&String>,
) -> Value {
    json!({
        "hash": hash,
        "folder": settings.policies.as_ref().map(|folder| folder.display().to_string()),
        "generation": status.map(|status| status.generation),
        "loadedAt": status.map(|status| system_time(status.loaded_at)),
        "summary": status.map(|status| &status.summary),
        "problem": status.and_then(|status| status.problem.as_ref()).map(problem),
        "policies": set.policies().iter().map(policy).collect::<Vec<_>>(),
        "breakGlass": set.break_glass().iter().map(|it| break_glass(it, set)).collect::<Vec<_>>(),
        "authorizationPolicies": set.authorization_policies().iter().map(|policy| authorization(policy)).collect::<Vec<_>>(),
    })
}

/// Why an older set than that of the files is in force.
fn problem(problem: &Problem) -> Value {
    json!({ "reason": problem.reason, "message": problem.message, "since": system_time(problem.since) })
}

fn policy(policy: &PeerAuthentication) -> Value {
    let mode_or_unset = |mode: Option<Mode>| mode.map_or(UNSET, Mode::as_str);
    let ports: BTreeMap<_, _> =
        policy.ports.iter().map(|(port, mode)| (port.to_string(), mode_or_unset(*mode))).collect();
    json!({
        "namespace": policy.namespace,
        "name": policy.name,
        "created": policy.created.map(|created| portcullis_tls::utc(created.unix_timestamp())),
        "selector": policy.selector,
        "mode": mode_or_unset(policy.mode),
        "dryRun": policy.dry_run,
        "ports": ports,
        "file": policy.file,
        "line": policy.line,
    })
}

/// One that ends by itself; `isActive` at the time of the set.
fn break_glass(it: &BreakGlass, set: &PolicySet) -> Value {
    let mut shown = policy(&it.policy);
    if let Value::Object(fields) = &mut shown {
        let is_active = set.active_break_glass().any(|active| **active == *it);
        let more = [("until", it.until_text().into()), ("isActive", is_active.into())];
        let more = more
            .into_iter()
            .chain([("reason", it.reason.as_str().into()), ("owner", it.policy.documentation.owner.as_deref().into())]);
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    shown
}

fn authorization(policy: &AuthorizationPolicy) -> Value {
    json!({
        "namespace": policy.namespace,
        "name": policy.name,
        "selector": policy.selector,
        "action": policy.action,
        "dryRun": policy.dry_run,
        "rules": policy.rules.len(),
        "file": policy.file,
        "line": policy.line,
    })
}

/// The mode of each port that the configuration or a policy names, and of all others.
pub(super) fn modes(settings: &Settings, policy: &EffectivePolicy) -> Value {
    let port = |port: u16| {
        let mut decided = decided(policy.mode(port));
        if let Value::Object(fields) = &mut decided {
            fields.insert("port".to_owned(), port.into());
        }
        decided
    };
    json!({
        "ports": named_ports(settings, policy).into_iter().map(port).collect::<Vec<_>>(),
        "otherPorts": decided(policy.workload()),
    })
}

fn decided(decided: &Decided) -> Value {
    json!({ "mode": decided.mode, "decidedBy": decided.by })
}

/// The same answer as the command `explain` gives for the same policies.
pub(in crate::daemon) fn explain(settings: &Settings, set: &PolicySet, port: u16) -> portcullis_policy::Explanation {
    let workload = &settings.workload;
    portcullis_policy::explain(set, &settings.mesh.policy, &workload.namespace, &workload.labels, port)
}
