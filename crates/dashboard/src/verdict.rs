//! The answer to "is it all mTLS, and if not, why?".

use crate::age::ago;
use crate::view::{Lock, TRAFFIC_SECONDS, Verdict, View};

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
const MAX_REASONS: usize = 4;

pub(crate) fn headline(view: &View) -> Headline {
    let used: Vec<Lock> = view.edges.iter().filter_map(crate::view::Edge::lock).collect();
    let unprotected = used.iter().filter(|lock| **lock != Lock::Closed).count();
    let admitting = view.ports.iter().filter(|port| port.verdict != Verdict::Strict).count();
    let (lock, sentence) = match (used.len(), unprotected) {
        (0, _) => (None, "Nothing was let through in the last hour, so nothing can be said.".to_owned()),
        (all, open) if open == all => (Some(Lock::Open), "No: none of the traffic is mTLS.".to_owned()),
        (all, open) if open > 0 => {
            (Some(Lock::Half), format!("No: on {open} of {all} paths between services, traffic goes without mTLS."))
        }
        (_, _) if view.answered < view.asked => {
            (Some(Lock::Half), "All traffic that was seen is mTLS, but not every sidecar answered.".to_owned())
        }
        (_, _) if admitting > 0 => {
            (Some(Lock::Half), "All traffic is mTLS, but plaintext would be let through.".to_owned())
        }
        _ => (Some(Lock::Closed), "Yes: all traffic is mTLS, and nothing else is let through.".to_owned()),
    };
    let mut reasons: Vec<String> =
        view.unreachable.iter().map(|(who, why)| format!("{who} did not answer: {why}.")).collect();
    for client in view.plaintext.iter().filter(|client| view.now.seconds_since(client.last_seen) < TRAFFIC_SECONDS) {
        let what = if client.transport == "tls" { "TLS of its own" } else { "plaintext" };
        let when = ago(view.now, client.last_seen);
        reasons.push(format!("{} sends {what} to {} ({when}).", client.name, client.to));
    }
    for certificate in &view.certificates {
        if let Some(problem) = &certificate.problem {
            reasons.push(format!("{} has no usable certificate: {problem}.", certificate.workload));
        }
    }
    if admitting > 0 {
        let ready = view.ports.iter().filter(|port| port.verdict == Verdict::Ready).count();
        let ports = view.ports.len();
        reasons.push(format!("Ports that are not STRICT: {admitting} of {ports}; ready for it: {ready}."));
    }
    let more = reasons.len().saturating_sub(MAX_REASONS);
    if more > 1 {
        let rest = reasons.split_off(MAX_REASONS - 1).len();
        reasons.push(format!("{rest} more below."));
    }
    Headline { lock, sentence, reasons }
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Mode, Timestamp};

    use super::*;
    use crate::view::{Edge, Port};

    fn view(edges: &[(u64, u64)], ports: &[Verdict]) -> View {
        let edge = |(mtls, plaintext): &(u64, u64)| Edge {
            from: 0,
            to: 1,
            port: 80,
            mtls: *mtls,
            plaintext: *plaintext,
            refused: 0,
            last_seen: Timestamp::default(),
        };
        let port = |verdict: &Verdict| Port {
            workload: "a".to_owned(),
            port: None,
            mode: Mode::Permissive,
            decided_by: String::new(),
            location: String::new(),
            mtls_percent: None,
            verdict: *verdict,
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
        let strict = [Verdict::Strict];
        let lock = |edges: &[(u64, u64)], ports: &[Verdict]| headline(&view(edges, ports)).lock;
        assert_eq!(lock(&[], &strict), None);
        assert_eq!(lock(&[(0, 0)], &strict), None);
        assert_eq!(lock(&[(5, 0)], &strict), Some(Lock::Closed));
        assert_eq!(lock(&[(5, 0)], &[Verdict::Strict, Verdict::Ready]), Some(Lock::Half));
        assert_eq!(lock(&[(5, 0), (9, 1)], &strict), Some(Lock::Half));
        assert_eq!(lock(&[(0, 3), (0, 1)], &strict), Some(Lock::Open));
    }

    #[test]
    fn a_sidecar_that_did_not_answer_keeps_the_lock_from_closing() {
        let mut view = view(&[(5, 0)], &[Verdict::Strict]);
        view.asked = 2;
        view.unreachable.push(("pay".to_owned(), "connection refused".to_owned()));
        let headline = headline(&view);
        assert_eq!((headline.lock, headline.reasons.len()), (Some(Lock::Half), 1));
    }
}
