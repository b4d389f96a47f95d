//! Which policy won, and why the others did not.

use std::collections::BTreeMap;
use std::fmt;

use portcullis_yaml::printable;
use serde::Serialize;

use crate::decided::{DecidedBy, Scope};
use crate::evaluation::Evaluation;
use crate::mode::Mode;
use crate::resolve::EffectivePolicy;
use crate::resolve::{DRY_RUN, OTHER_NAMESPACE, ROOT_SELECTOR, SELECTOR_MISMATCH, candidate, choose};
use crate::set::PolicySet;
use crate::spec::UNSET;
use crate::workload::MeshSettings;

/// Another policy of the same scope was chosen.
const SHADOWED: &str = "shadowed";
/// The time of a break-glass document is over.
const ENDED: &str = "break-glass-ended";

/// The answer for one port.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The port asked for.
    pub port: u16,
    /// Its mode.
    pub mode: Mode,
    /// The policy that decided.
    pub decided_by: DecidedBy,
    /// The chosen policy of each scope: mesh, namespace, workload, port.
    pub ladder: Vec<Rung>,
    /// Every other policy.
    pub ignored: Vec<IgnoredPolicy>,
    /// If break-glass decided: until when, why, and how much of its time is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<TimeLeft>,
}

/// How long a break-glass document still holds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeLeft {
    /// Its end, in RFC 3339.
    pub until: String,
    /// Seconds to its end.
    pub seconds_left: i64,
    /// Why it was made.
    pub reason: String,
    /// Who wanted it.
    pub owner: Option<String>,
}

/// One step of the ladder.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Rung {
    /// The policy.
    #[serde(flatten)]
    pub by: DecidedBy,
    /// Its mode, or UNSET.
    pub mode: &'static str,
    /// Whether it decided.
    pub applied: bool,
}

/// A policy that does not apply.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct IgnoredPolicy {
    /// The policy.
    #[serde(flatten)]
    pub by: DecidedBy,
    /// Why: `other-namespace`, `root-selector`, `selector-mismatch`, `dry-run`, or `shadowed` by an older one of its scope.
    pub reason: &'static str,
}

/// Explains the mode of a port.
#[must_use]
pub fn explain(
    set: &PolicySet,
    mesh: &MeshSettings,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    port: u16,
) -> Explanation {
    let chosen = choose(set, mesh, namespace, labels, Evaluation::Enforced);
    let effective = EffectivePolicy::resolve(set, mesh, namespace, labels);
    let decided = effective.mode(port);
    let mode_name = |mode: Option<Mode>| mode.map_or(UNSET, Mode::as_str);
    let mut ladder = Vec::new();
    let scopes = [(Scope::Mesh, chosen.mesh), (Scope::Namespace, chosen.namespace), (Scope::Workload, chosen.workload)];
    for (scope, policy) in scopes {
        ladder.extend(policy.map(|policy| (DecidedBy::new(scope, policy), mode_name(policy.mode))));
    }
    if let Some((policy, mode)) = chosen.workload.and_then(|policy| Some((policy, policy.ports.get(&port)?))) {
        ladder.push((DecidedBy::new(Scope::Port, policy), mode_name(*mode)));
    }
    if decided.by.scope == Scope::BreakGlass {
        ladder.push((decided.by.clone(), decided.mode.as_str()));
    }
    let ladder = ladder.into_iter().map(|(by, mode)| Rung { applied: by == decided.by, by, mode }).collect::<Vec<_>>();
    let winners = [chosen.mesh, chosen.namespace, chosen.workload];
    let ignored =
        set.policies().iter().filter(|policy| !winners.iter().flatten().any(|won| std::ptr::eq(*won, *policy)));
    let ignored = ignored.map(|policy| {
        let (scope, reason) = match candidate(policy, mesh, namespace, labels, Evaluation::Enforced) {
            Ok(scope) => (scope, SHADOWED),
            Err(reason) if policy.selector.is_empty() => (Scope::Namespace, reason),
            Err(reason) => (Scope::Workload, reason),
        };
        IgnoredPolicy { by: DecidedBy::new(scope, policy), reason }
    });
    let ended = set.break_glass().iter().filter(|it| it.covers(namespace, labels));
    let ended = ended.filter(|it| set.active_break_glass().all(|active| active != *it));
    let ended = ended.map(|it| IgnoredPolicy { by: DecidedBy::break_glass(it), reason: ENDED });
    let break_glass = set.active_break_glass().find(|it| DecidedBy::break_glass(it) == decided.by).map(|it| TimeLeft {
        until: it.until_text(),
        seconds_left: it.until.saturating_sub(set.now.unwrap_or(it.until)),
        reason: it.reason.clone(),
        owner: it.policy.documentation.owner.clone(),
    });
    let ignored = ignored.chain(ended).collect();
    Explanation { port, mode: decided.mode, decided_by: decided.by.clone(), ladder, ignored, break_glass }
}

/// How many policies of other namespaces the text lists one by one.
const OTHERS_LISTED: usize = 5;

/// As text: the answer, the ladder from wide to narrow, and the policies that do not apply.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { port, mode, decided_by, ladder, ignored, break_glass } = self;
        writeln!(f, "port {port}: {mode}, decided by {}", describe(decided_by))?;
        if let Some(TimeLeft { until, seconds_left, reason, owner }) = break_glass {
            let owner = owner.as_ref().map_or_else(String::new, |owner| format!(", {}", printable(owner)));
            writeln!(f, "   until {until}, {} min left: {}{owner}", (seconds_left + 59) / 60, printable(reason))?;
        }
        for rung in ladder {
            let mark = if rung.applied { "=>" } else { "  " };
            writeln!(f, "{mark} {:<9}  {:<10}  {}", rung.by.scope, rung.mode, location(&rung.by))?;
        }
        let (others, ours): (Vec<_>, Vec<_>) = ignored.iter().partition(|policy| policy.reason == OTHER_NAMESPACE);
        let listed = if others.len() > OTHERS_LISTED { 0 } else { others.len() };
        let shown: Vec<_> = ours.into_iter().chain(others.iter().take(listed).copied()).collect();
        if !ignored.is_empty() {
            writeln!(f, "ignored:")?;
        }
        for policy in shown {
            writeln!(f, "   {}: {} ({})", location(&policy.by), explanation(policy.reason), policy.reason)?;
        }
        if others.len() > listed {
            writeln!(f, "   {} policies of other namespaces ({OTHER_NAMESPACE})", others.len())?;
        }
        Ok(())
    }
}

fn describe(by: &DecidedBy) -> String {
    match by.scope {
        Scope::Default => "default, since no policy says anything".to_owned(),
        Scope::BreakGlass => format!("break-glass {}", location(by)),
        Scope::Port => format!("portLevelMtls of {}", location(by)),
        scope => format!("the {scope} policy {}", location(by)),
    }
}

fn location(by: &DecidedBy) -> String {
    match (&by.file, by.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", by.label()),
        _ => by.label(),
    }
}

fn explanation(reason: &str) -> &'static str {
    match reason {
        SHADOWED => "another policy of its scope is older, or comes first by name",
        ROOT_SELECTOR => "a policy with a selector has no effect in the root namespace",
        ENDED => "its time is over",
        DRY_RUN => "it is a dry run (annotation istio.io/dry-run)",
        SELECTOR_MISMATCH => "its selector does not match these labels",
        _ => "it is of another namespace",
    }
}
