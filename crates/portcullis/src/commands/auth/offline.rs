//! From files: what the proxy would do with them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use portcullis_policy::authorization::{AppliedPolicy, AuthorizationOverview};
use portcullis_policy::{DecidedBy, EffectivePolicy, Mode};
use serde::Serialize;

use crate::commands::subject::{LoadedSubject, SubjectArgs};
use crate::exit::{Exit, Outcome};
use crate::output::{self, Cell, ListArgs, OutputFormat, Table};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    namespace: String,
    labels: BTreeMap<String, String>,
    /// The ports with a mode of their own, then all others.
    ports: Vec<Port>,
    authorization: AuthorizationOverview,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    /// `null`: every other port.
    port: Option<u16>,
    mode: Mode,
    decided_by: DecidedBy,
}

pub(super) fn run(subject: &SubjectArgs, list: ListArgs) -> Outcome {
    let LoadedSubject { set, mesh, namespace, labels, .. } = subject.load()?;
    let policy = EffectivePolicy::resolve(&set, &mesh, &namespace, &labels);
    let mut named: Vec<u16> = policy.ports().collect();
    named.sort_unstable();
    let mut ports: Vec<Port> = Vec::new();
    for port in named.into_iter().map(Some).chain([None]) {
        let decided = port.map_or_else(|| policy.workload(), |port| policy.mode(port));
        ports.push(Port { port, mode: decided.mode, decided_by: decided.by.clone() });
    }
    let authorization = AuthorizationOverview::new(&set, &mesh, &namespace, &labels);
    let answer = Answer { namespace, labels, ports, authorization };
    match list.output {
        OutputFormat::Json => output::json(&answer)?,
        OutputFormat::Yaml => output::yaml(&answer)?,
        OutputFormat::Name => output::text(&names(&answer))?,
        _ => output::text(&text(&answer, list))?,
    }
    Ok(Exit::Ok)
}

/// Every policy that applies.
fn names(answer: &Answer) -> String {
    let peer = answer.ports.iter().filter(|port| port.decided_by.name.is_some());
    let mut names: Vec<String> = peer.map(|port| format!("peerauthentication/{}\n", port.decided_by.label())).collect();
    names.dedup();
    let applied = answer.authorization.applied.iter();
    names.extend(applied.map(|policy| format!("authorizationpolicy/{}/{}\n", policy.namespace, policy.name)));
    names.concat()
}

fn text(answer: &Answer, list: ListArgs) -> String {
    let mut modes = Table::new(["PORT", "SERVER", "AUTHN POLICY", "SCOPE", "WHERE"]);
    for Port { port, mode, decided_by } in &answer.ports {
        let at = decided_by.file.as_ref().zip(decided_by.line).map(|(file, line)| format!("{file}:{line}"));
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let cells = [port, mode.to_string(), decided_by.label(), decided_by.scope.to_string(), at.unwrap_or_default()];
        modes.push(cells.map(Cell::from));
    }
    let mut text = list.table(&modes);
    text.push('\n');
    let AuthorizationOverview { applied, ignored } = &answer.authorization;
    if applied.is_empty() {
        text.push_str("no AuthorizationPolicy applies, so every connection that the mode accepts is allowed\n");
    } else {
        let mut rows = Table::new(["ACTION", "AuthorizationPolicy", "RULES", "WHERE", "NOTES"]);
        for policy in applied {
            let AppliedPolicy { action, namespace, name, rules, file, line, .. } = policy;
            let cells = [
                action.to_string(),
                // As istioctl prints it.
                format!("{name}.{namespace}"),
                rules.to_string(),
                format!("{file}:{line}"),
                notes(policy),
            ];
            rows.push(cells.map(Cell::from));
        }
        text.push_str(&list.table(&rows));
    }
    if !ignored.is_empty() {
        text.push_str("\nignored:\n");
    }
    let (others, ours): (Vec<_>, Vec<_>) = ignored.iter().partition(|policy| policy.reason == OTHER_NAMESPACE);
    let listed = if others.len() > OTHERS_LISTED { 0 } else { others.len() };
    for policy in ours.into_iter().chain(others.iter().copied().take(listed)) {
        let (namespace, name, file, line) = (&policy.namespace, &policy.name, &policy.file, policy.line);
        let why = explanation(policy.reason);
        let _infallible = writeln!(text, "   {namespace}/{name} ({file}:{line}): {why} ({})", policy.reason);
    }
    if others.len() > listed {
        let _infallible = writeln!(text, "   {} policies of other namespaces ({OTHER_NAMESPACE})", others.len());
    }
    text
}

/// How many policies of other namespaces the text lists one by one, as `explain` does.
const OTHERS_LISTED: usize = 5;
const OTHER_NAMESPACE: &str = "other-namespace";

fn notes(policy: &AppliedPolicy) -> String {
    let mut notes = Vec::new();
    if policy.dry_run {
        notes.push("dry run: decides nothing".to_owned());
    }
    if policy.root_selector {
        notes.push("root namespace with a selector: reaches every namespace".to_owned());
    }
    let mut rules = |numbers: &[usize], what: &str| {
        if !numbers.is_empty() {
            let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            notes.push(format!("about HTTP, {what}: rule {}", numbers.join(", ")));
        }
    };
    rules(&policy.rules_without_effect, "so never matches a connection");
    rules(&policy.rules_widened, "matched without regard to it");
    if policy.rules == 0 {
        notes.push("no rules: matches nothing".to_owned());
    }
    notes.join("; ")
}

fn explanation(reason: &str) -> &'static str {
    match reason {
        "target-refs" => "it has targetRefs, which are for waypoints and gateways",
        "selector-mismatch" => "its selector does not match these labels",
        _ => "it is of another namespace",
    }
}
