//! What policies mean for the workload of this sidecar, and the lines that tell what a change of them means.

use std::collections::BTreeSet;

use portcullis_config::Settings;
use portcullis_policy::authorization::AuthorizationAction;
use portcullis_policy::{EffectivePolicy, Mode, PolicySet};

use super::change_log::ChangeLog;

/// The policies of a set that hold for the workload.
pub(super) fn resolve(settings: &Settings, set: &PolicySet) -> EffectivePolicy {
    let workload = &settings.workload;
    EffectivePolicy::resolve(set, &settings.mesh.policy, &workload.namespace, &workload.labels)
}

/// One line for each port that the configuration or a policy names: its mode, and the policy that decided it.
/// After a change also the mode that it `was`; a port that admits more than before is worth a warning.
pub(super) fn log_modes(settings: &Settings, policy: &EffectivePolicy, before: Option<&EffectivePolicy>) {
    let mut ports = named_ports(settings, policy);
    ports.extend(before.into_iter().flat_map(EffectivePolicy::ports));
    for port in ports {
        let decided = policy.mode(port);
        let (mode, policy) = (decided.mode.as_str(), &decided.label);
        match before.map(|before| before.mode(port).mode).filter(|was| *was != decided.mode) {
            Some(was) if admits(decided.mode) > admits(was) => {
                tracing::warn!(port, mode, was = was.as_str(), %policy, "inbound port");
            }
            Some(was) => tracing::info!(port, mode, was = was.as_str(), %policy, "inbound port"),
            None => tracing::info!(port, mode, %policy, "inbound port"),
        }
    }
}

/// One line with how many AuthorizationPolicies apply, if any do and they are not those from before.
pub(super) fn log_authorization(policy: &EffectivePolicy, before: Option<&EffectivePolicy>) {
    let authorizer = policy.authorizer();
    let had_any = before.is_some_and(|before| before.authorizer().policies().next().is_some());
    let has_any = authorizer.policies().next().is_some();
    if !(has_any || had_any) || before.is_some_and(|before| before.authorizer() == authorizer) {
        return;
    }
    let count = |action| authorizer.policies().filter(|policy| policy.action == action).count();
    let (deny, allow) = (count(AuthorizationAction::Deny), count(AuthorizationAction::Allow));
    let audit = count(AuthorizationAction::Audit);
    tracing::info!(deny, allow, audit, "authorization policies that apply to this workload");
}

/// Adds what a change of policies means for this workload.
pub(super) fn add_changes(log: &ChangeLog, settings: &Settings, policy: &EffectivePolicy, before: &EffectivePolicy) {
    let mut is_told = false;
    let mut add = |what: String| {
        is_told = true;
        log.add(what);
    };
    for port in named_ports(settings, policy).into_iter().chain(before.ports()).collect::<BTreeSet<_>>() {
        let (was, is) = (before.mode(port), policy.mode(port));
        if was.mode != is.mode {
            add(format!("port {port}: {} -> {} ({})", was.mode, is.mode, is.label));
        }
    }
    let (was, is) = (before.workload(), policy.workload());
    if was.mode != is.mode {
        add(format!("every other port: {} -> {} ({})", was.mode, is.mode, is.label));
    }
    if policy.authorizer() != before.authorizer() {
        let count = policy.authorizer().policies().count();
        add(format!("AuthorizationPolicies that apply: {count}"));
    }
    if !is_told {
        log.add("policies read again; nothing changes for this workload".to_owned());
    }
}

/// How much a mode lets through, for comparison.
const fn admits(mode: Mode) -> u8 {
    match mode {
        Mode::Strict => 0,
        Mode::Permissive => 1,
        Mode::Disable => 2,
    }
}

/// The ports that the configuration or a policy names, in order.
pub(super) fn named_ports(settings: &Settings, policy: &EffectivePolicy) -> BTreeSet<u16> {
    settings.inbound.ports.iter().map(|port| port.port).chain(policy.ports()).collect()
}
