//! The answer to "is it all mTLS, and if not, why?".

use crate::view::{Edge, Lock, PlaintextClient, PortStatus, TRAFFIC_SECONDS, View};
use portcullis_report::ago;

/// The first sentence of the page and its reasons.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Headline {
    /// `None`: nothing was seen.
    pub(crate) lock: Option<Lock>,
    pub(crate) sentence: String,
    /// The most urgent ones, each a sentence.
    pub(crate) reasons: Vec<String>,
}

/// More reasons would not be read; the tables have them all.
const MAX_REASONS: usize = 5;
/// The most ports that are named in one of them.
const MAX_NAMES: usize = 4;

pub(crate) fn headline(view: &View) -> Headline {
    let admitting =
        view.ports.iter().filter(|port| !matches!(port.verdict, PortStatus::Strict | PortStatus::Exception)).count();
    let (lock, sentence) = answer(view, admitting);
    let mut reasons: Vec<String> =
        view.unreachable.iter().map(|(who, why)| format!("{who} did not answer: {why}.")).collect();
    reasons.extend(view.break_glass.iter().map(|open| format!("Break-glass lets plaintext in at {open}.")));
    reasons.extend(plaintext_clients(view));
    reasons.extend(refusals(view));
    for certificate in &view.certificates {
        if let Some(problem) = &certificate.problem {
            reasons.push(format!("{} has no usable certificate: {problem}.", certificate.workload));
        }
    }
    for port in &view.ports {
        if let Some(terms) = &port.exception {
            let number = port.port.map_or_else(|| "other ports".to_owned(), |port| port.to_string());
            reasons.push(format!("Exception: {}:{number}, {terms}.", port.workload));
        }
    }
    if let Some(ports) = open_ports(view) {
        reasons.push(ports);
    } else if admitting > 0 {
        reasons.push(format!("{admitting} workloads admit plaintext on ports that no policy names."));
    }
    let more = reasons.len().saturating_sub(MAX_REASONS);
    if more > 1 {
        let rest = reasons.split_off(MAX_REASONS - 1).len();
        reasons.push(format!("{rest} more below."));
    }
    Headline { lock, sentence, reasons }
}

/// Whether all traffic is mTLS; `admitting` ports would let plaintext in.
fn answer(view: &View, admitting: usize) -> (Option<Lock>, String) {
    let used: Vec<Lock> = view.edges.iter().filter_map(Edge::lock).collect();
    let not_closed = |edge: &&Edge| edge.lock().is_some_and(|lock| lock != Lock::Closed);
    let unprotected = view.edges.iter().filter(not_closed).filter(|edge| !edge.is_exception).count();
    let exceptions = view.ports.iter().filter(|port| port.verdict == PortStatus::Exception).count();
    let but = match exceptions {
        0 => String::new(),
        1 => ", but for 1 documented exception".to_owned(),
        many => format!(", but for {many} documented exceptions"),
    };
    match (used.len(), unprotected) {
        _ if view.answered == 0 && view.asked > 0 => (None, "No sidecar answers, so nothing can be said.".to_owned()),
        (0, _) => (None, "Nothing was let through in the last hour, so nothing can be said.".to_owned()),
        (all, open) if open == all => (Some(Lock::Open), "No: none of the traffic is mTLS.".to_owned()),
        (all, open) if open > 0 => {
            (Some(Lock::Half), format!("No: on {open} of {all} paths, traffic goes without mTLS."))
        }
        (_, _) if view.answered < view.asked => {
            (Some(Lock::Half), format!("All traffic that was seen is mTLS{but}; not every sidecar answered."))
        }
        (_, _) if admitting > 0 => {
            (Some(Lock::Half), format!("All traffic is mTLS{but}; plaintext would be let through."))
        }
        (_, _) if exceptions > 0 => {
            (Some(Lock::Half), format!("Yes{but}: every other port is STRICT, and lets only mTLS through."))
        }
        _ => (Some(Lock::Closed), "Yes: every port is STRICT, and only mTLS is let through.".to_owned()),
    }
}

/// Clients that sent something else than mTLS lately.
fn plaintext_clients(view: &View) -> Vec<String> {
    let mut reasons = Vec::new();
    let is_recent = |client: &&PlaintextClient| view.now.seconds_since(client.last_seen) < TRAFFIC_SECONDS;
    for client in view.plaintext.iter().filter(|client| !client.is_exception).filter(is_recent) {
        let what = if client.transport == "tls" { "TLS of its own" } else { "plaintext" };
        let when = ago(client.last_seen, view.now);
        reasons.push(if client.has_sidecar_now {
            format!("{} sent {what} to {} ({when}); it has a sidecar now.", client.name, client.to)
        } else {
            format!("{} sends {what} to {} ({when}).", client.name, client.to)
        });
    }
    reasons
}

/// Refusals by policy: a caller that is cut off matters as much as one that is not protected.
fn refusals(view: &View) -> Vec<String> {
    let mut reasons = Vec::new();
    for refused in view.refused.iter().filter(|refused| !refused.policy.is_empty()) {
        if view.now.seconds_since(refused.at) < TRAFFIC_SECONDS {
            let (when, times) = (
                ago(refused.at, view.now),
                if refused.count == 1 { "once".to_owned() } else { format!("{} times", refused.count) },
            );
            reasons.push(format!(
                "Refused by {}: {} to {}, {times} (last {when}).",
                refused.policy, refused.from, refused.to
            ));
        }
    }
    reasons
}

/// The ports that are not STRICT, by how far they are.
fn open_ports(view: &View) -> Option<String> {
    let ports = |verdict: PortStatus| {
        let named = view.ports.iter().filter(|port| port.verdict == verdict);
        let mut names: Vec<String> =
            named.filter_map(|port| Some(format!("{}:{}", port.workload, port.port?))).collect();
        let more = names.len().saturating_sub(MAX_NAMES);
        names.truncate(MAX_NAMES);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{}{rest}", names.join(", ")))
    };
    let state = [
        (PortStatus::Ready, "ready for STRICT"),
        (PortStatus::NotReady, "not ready for STRICT"),
        (PortStatus::NoData, "not seen in use"),
    ];
    let state: Vec<String> =
        state.into_iter().filter_map(|(verdict, words)| Some(format!("{words}: {}", ports(verdict)?))).collect();
    (!state.is_empty()).then(|| sentence_of(&state.join("; ")))
}

/// With a capital letter and a full stop.
fn sentence_of(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", characters.as_str())
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Mode, Timestamp};

    use super::*;
    use crate::view::Port;

    fn view(edges: &[(u64, u64)], ports: &[PortStatus]) -> View {
        let edge = |(mtls, plaintext): &(u64, u64)| Edge {
            from: 0,
            to: 1,
            port: 80,
            mtls: *mtls,
            plaintext: *plaintext,
            refused: 0,
            last_seen: Timestamp::default(),
            is_exception: false,
        };
        let port = |verdict: &PortStatus| Port {
            workload: "a".to_owned(),
            port: None,
            mode: Mode::Permissive,
            decided_by: String::new(),
            location: String::new(),
            mtls_percent: None,
            verdict: *verdict,
            observed_seconds: 0,
            exception: None,
        };
        View {
            edges: edges.iter().map(edge).collect(),
            ports: ports.iter().map(port).collect(),
            asked: 1,
            answered: 1,
            ..View::default()
        }
    }

    #[test]
    fn the_lock_is_closed_only_if_all_is_mtls_and_nothing_else_would_be_let_through() {
        let strict = [PortStatus::Strict];
        let lock = |edges: &[(u64, u64)], ports: &[PortStatus]| headline(&view(edges, ports)).lock;
        assert_eq!(lock(&[], &strict), None);
        assert_eq!(lock(&[(0, 0)], &strict), None);
        assert_eq!(lock(&[(5, 0)], &strict), Some(Lock::Closed));
        assert_eq!(lock(&[(5, 0)], &[PortStatus::Strict, PortStatus::Ready]), Some(Lock::Half));
        assert_eq!(lock(&[(5, 0), (9, 1)], &strict), Some(Lock::Half));
        assert_eq!(lock(&[(0, 3), (0, 1)], &strict), Some(Lock::Open));
    }

    #[test]
    fn what_only_a_documented_exception_lets_through_is_no_plain_no() {
        let mut view = view(&[(5, 0), (0, 3)], &[PortStatus::Strict, PortStatus::Exception]);
        view.ports[1].exception = Some("shop-team, until 2099-01-01 (20d left)".to_owned());
        assert!(headline(&view).sentence.starts_with("No:"), "its port is no exception");
        view.edges[1].is_exception = true;
        let headline = headline(&view);
        assert_eq!(headline.lock, Some(Lock::Half));
        assert!(headline.sentence.starts_with("Yes, but for 1 documented exception:"), "{}", headline.sentence);
        assert_eq!(headline.reasons, ["Exception: a:other ports, shop-team, until 2099-01-01 (20d left)."]);
    }

    #[test]
    fn without_any_answer_nothing_is_said() {
        let mut view = view(&[], &[]);
        view.answered = 0;
        view.unreachable.push(("all sidecars".to_owned(), "no container".to_owned()));
        let headline = headline(&view);
        assert_eq!(headline.sentence, "No sidecar answers, so nothing can be said.");
        assert_eq!(headline.reasons, ["all sidecars did not answer: no container."]);
    }

    #[test]
    fn a_sidecar_that_did_not_answer_keeps_the_lock_from_closing() {
        let mut view = view(&[(5, 0)], &[PortStatus::Strict]);
        view.asked = 2;
        view.unreachable.push(("pay".to_owned(), "connection refused".to_owned()));
        let headline = headline(&view);
        assert_eq!((headline.lock, headline.reasons.len()), (Some(Lock::Half), 1));
    }
}
