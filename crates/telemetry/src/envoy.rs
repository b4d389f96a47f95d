//! Access lines as Envoy writes them in an Istio mesh, so that filters, dashboards and alerts made for those go on working.
//!
//! What does not apply to a TCP connection, or is not known here, is `-` (in JSON `null`). Whatever a peer had a hand in is
//! reduced to visible characters: no line breaks, no escape sequences, no quotes.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::connection::Direction;
use crate::facts::RuleIndex;
use crate::outcome::{Ending, ResponseFlag};
use crate::record::ConnRecord;

const START_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// How a connection ended, in Envoy's words.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Outcome {
    flags: Option<&'static str>,
    details: Option<&'static str>,
    termination: Option<Cow<'static, str>>,
    upstream_failure: Option<String>,
    /// Whether an upstream was chosen at all.
    upstream: bool,
}

/// The fields that have a value for a TCP connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Line {
    start: String,
    outcome: Outcome,
    received: u64,
    sent: u64,
    duration: u128,
    upstream_host: Option<SocketAddr>,
    upstream_cluster: Option<String>,
    downstream_local: Option<SocketAddr>,
    downstream_remote: SocketAddr,
    server_name: Option<String>,
}

impl Line {
    pub(crate) fn new(record: &ConnRecord, ending: &Ending, admitted: bool) -> Self {
        let age = record.started.elapsed();
        let outcome = outcome(record, ending, admitted);
        let (upstream_host, downstream_local) = match record.direction {
            Direction::Inbound => (record.app(), record.dst_addr),
            // What was dialled. Which of the local addresses the app used is not recorded.
            Direction::Outbound => (record.dst_addr, None),
        };
        Self {
            start: start(age),
            received: record.bytes.received.load(Ordering::Relaxed),
            sent: record.bytes.sent.load(Ordering::Relaxed),
            duration: age.as_millis(),
            upstream_host: upstream_host.filter(|_| outcome.upstream),
            upstream_cluster: cluster(record, ending, &outcome),
            downstream_local,
            downstream_remote: record.src_addr,
            server_name: record.sni.name().map(visible),
            outcome,
        }
    }

    /// Istio's default text format.
    pub(crate) fn text(&self) -> String {
        fn or_dash<T: ToString>(value: Option<&T>) -> String {
            value.map_or_else(|| "-".to_owned(), ToString::to_string)
        }
        let Self { start, outcome, received, sent, duration, downstream_remote, .. } = self;
        let Outcome { flags, details, termination, upstream_failure, .. } = outcome;
        format!(
            "[{start}] \"- - -\" 0 {} {} {} \"{}\" {received} {sent} {duration} - \"-\" \"-\" \"-\" \"-\" \"{}\" {} - {} {downstream_remote} {} -",
            or_dash(flags.as_ref()),
            or_dash(details.as_ref()),
            or_dash(termination.as_ref()),
            or_dash(upstream_failure.as_ref()),
            or_dash(self.upstream_host.as_ref()),
            or_dash(self.upstream_cluster.as_ref()),
            or_dash(self.downstream_local.as_ref()),
            or_dash(self.server_name.as_ref()),
        )
    }

    /// Istio's JSON format.
    pub(crate) fn json(&self) -> String {
        let Outcome { flags, details, termination, upstream_failure, .. } = &self.outcome;
        let object = json!({
            "start_time": self.start,
            "method": null,
            "path": null,
            "protocol": null,
            "response_code": 0,
            "response_flags": flags.unwrap_or("-"),
            "response_code_details": details,
            "connection_termination_details": termination,
            "upstream_transport_failure_reason": upstream_failure,
            "bytes_received": self.received,
            "bytes_sent": self.sent,
            "duration": u64::try_from(self.duration).unwrap_or(u64::MAX),
            "upstream_service_time": null,
            "x_forwarded_for": null,
            "user_agent": null,
            "request_id": null,
            "authority": null,
            "upstream_host": self.upstream_host.map(|address| address.to_string()),
            "upstream_cluster": self.upstream_cluster,
            "upstream_local_address": null,
            "downstream_local_address": self.downstream_local.map(|address| address.to_string()),
            "downstream_remote_address": self.downstream_remote.to_string(),
            "requested_server_name": self.server_name,
            "route_name": null,
        });
        object.to_string()
    }
}

fn start(age: Duration) -> String {
    let at = SystemTime::now().checked_sub(age).unwrap_or_else(SystemTime::now);
    OffsetDateTime::from(at).format(START_TIME).unwrap_or_else(|_| "-".to_owned())
}

/// Envoy's flags and details. Our own reason stands where Envoy has its `connection_termination_details`.
fn outcome(record: &ConnRecord, ending: &Ending, admitted: bool) -> Outcome {
    let (direction, mode) = (record.direction, record.mode);
    let reason = Some(ending.reason).filter(|reason| *reason != "-").map(Cow::Borrowed);
    // Under STRICT Envoy has no filter chain for what is no mTLS, and for what has not said in time what it is.
    let chain = ["plaintext_in_strict", "silent_client", "incomplete_hello", "malformed_hello"];
    if direction == Direction::Inbound && mode == "STRICT" && chain.contains(&ending.reason) {
        return Outcome { flags: Some("NR"), details: Some("filter_chain_not_found"), ..Outcome::default() };
    }
    if ending.reason == "no_route" {
        return Outcome { flags: Some("UH"), ..Outcome::default() };
    }
    if let Some(termination) = authorization(record, ending) {
        return Outcome { termination: Some(termination), upstream: admitted, ..Outcome::default() };
    }
    let failure = |upstream| Outcome {
        flags: Some("UF,URX"),
        upstream_failure: Some(visible(&format!("{}:{}", ending.reason, ending.error.as_deref().unwrap_or("-")))),
        upstream,
        ..Outcome::default()
    };
    match (ending.flag, direction) {
        (ResponseFlag::Connect, _) => failure(true),
        (ResponseFlag::TlsFailure | ResponseFlag::IdentityError, Direction::Outbound) => failure(true),
        _ => Outcome { termination: reason, upstream: admitted, ..Outcome::default() },
    }
}

/// What Envoy's RBAC filter says of a connection that is not authorized, with the names that istiod gives policies.
fn authorization(record: &ConnRecord, ending: &Ending) -> Option<Cow<'static, str>> {
    match (ending.reason, record.policy.split_once('/'), record.rule.map(RuleIndex::get)) {
        ("authorization_denied", Some((namespace, name)), Some(rule)) => Some(Cow::Owned(visible(&format!(
            "rbac_access_denied_matched_policy[ns[{namespace}]-policy[{name}]-rule[{rule}]]"
        )))),
        ("authorization_not_allowed", ..) => Some(Cow::Borrowed("rbac_access_denied_matched_policy[none]")),
        _ => None,
    }
}

fn cluster(record: &ConnRecord, ending: &Ending, outcome: &Outcome) -> Option<String> {
    if ending.reason == "no_route" {
        return Some("BlackHoleCluster".to_owned());
    }
    let port = record.port.filter(|_| outcome.upstream)?;
    Some(match (record.direction, &record.service) {
        (Direction::Inbound, _) => format!("inbound|{port}||"),
        (Direction::Outbound, Some(service)) => format!("outbound|{port}||{}", visible(service.host())),
        (Direction::Outbound, None) => "PassthroughCluster".to_owned(),
    })
}

/// One word without anything that a terminal or a reader of lines would act on; Envoy puts underscores there too.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metrics;
    use crate::facts::ServerName;
    use crate::names::Service;
    use crate::names::tests::own;
    use crate::outcome::Decision;

    fn record(direction: Direction) -> ConnRecord {
        let (form, output) = (crate::AccessLog::Envoy, crate::log::Output::direct());
        let outputs = crate::AccessOutputs { form, output, sink: None };
        let metrics = Metrics::with_outputs("0.0.0", own(), outputs, crate::metrics::in_memory()).unwrap();
        let mut record = ConnRecord::open(&metrics, direction, "10.0.0.9:4000".parse().unwrap());
        record.dst_addr = Some("10.0.0.1:8080".parse().unwrap());
        record.port = Some(8080);
        record.mode = "STRICT";
        record
    }

    fn ending(reason: &'static str, flag: ResponseFlag, error: Option<&str>) -> Ending {
        let error = error.map(str::to_owned);
        Ending { decision: Decision::Deny, reason, hint: "", flag, error }
    }

    /// The line behind its start time.
    fn text(record: &ConnRecord, ending: &Ending, admitted: bool) -> String {
        let line = Line { duration: 1, ..Line::new(record, ending, admitted) }.text();
        let (start, rest) = line.split_once("] ").unwrap();
        assert!(start.len() == 25 && start.starts_with("[20") && start.ends_with('Z'), "{start}");
        rest.to_owned()
    }

    #[test]
    fn a_strict_reject_is_the_line_that_people_grep_for() {
        let record = record(Direction::Inbound);
        let refused = ending("plaintext_in_strict", ResponseFlag::Deny, None);
        assert_eq!(
            text(&record, &refused, false),
            "\"- - -\" 0 NR filter_chain_not_found - \"-\" 0 0 1 - \"-\" \"-\" \"-\" \"-\" \"-\" - - 10.0.0.1:8080 10.0.0.9:4000 - -"
        );
    }

    #[test]
    fn an_admitted_connection_names_its_upstream() {
        let mut inbound = record(Direction::Inbound);
        inbound.set_app("127.0.0.1:80".parse().unwrap());
        inbound.sni = ServerName::read(Some("cart.shop".to_owned()));
        inbound.bytes.received.store(5, Ordering::Relaxed);
        inbound.bytes.sent.store(7, Ordering::Relaxed);
        let end = Ending { decision: Decision::Allow, ..ending("-", ResponseFlag::None, None) };
        assert_eq!(
            text(&inbound, &end, true),
            "\"- - -\" 0 - - - \"-\" 5 7 1 - \"-\" \"-\" \"-\" \"-\" \"127.0.0.1:80\" inbound|8080|| - 10.0.0.1:8080 10.0.0.9:4000 cart.shop -"
        );
        let mut outbound = record(Direction::Outbound);
        outbound.service = Some(std::sync::Arc::new(Service::new("cart", "shop")));
        let failed = ending("unknown_ca", ResponseFlag::TlsFailure, Some("no \"root\"\n\u{1b}[31m"));
        assert_eq!(
            text(&outbound, &failed, false),
            "\"- - -\" 0 UF,URX - - \"unknown_ca:no__root___[31m\" 0 0 1 - \"-\" \"-\" \"-\" \"-\" \"10.0.0.1:8080\" \
             outbound|8080||cart.shop.svc.cluster.local - - 10.0.0.9:4000 - -"
        );
    }

    #[test]
    fn our_own_reasons_stand_where_envoy_has_room_for_them() {
        let record = record(Direction::Inbound);
        for (reason, flag, admitted, shown) in [
            ("policy_changed", ResponseFlag::Deny, true, "0 - - policy_changed \"-\""),
            ("unknown_ca", ResponseFlag::TlsFailure, false, "0 - - unknown_ca \"-\""),
            ("idle_timeout", ResponseFlag::None, true, "0 - - idle_timeout \"-\""),
            ("app_unreachable", ResponseFlag::Connect, false, "0 UF,URX - - \"app_unreachable:-\""),
        ] {
            let line = text(&record, &ending(reason, flag, None), admitted);
            assert!(line.contains(shown), "{reason}: {line}");
        }
    }

    #[test]
    fn a_connection_that_is_not_authorized_reads_as_in_envoy() {
        let mut record = record(Direction::Inbound);
        let none = text(&record, &ending("authorization_not_allowed", ResponseFlag::Deny, None), false);
        assert!(none.contains(" 0 - - rbac_access_denied_matched_policy[none] \"-\""), "{none}");
        (record.policy, record.rule) = ("shop/deny-web".into(), RuleIndex::new(2));
        let denied = text(&record, &ending("authorization_denied", ResponseFlag::Deny, None), false);
        assert!(denied.contains(" rbac_access_denied_matched_policy[ns[shop]-policy[deny-web]-rule[2]] "), "{denied}");
    }

    #[test]
    fn json_is_one_line_with_the_same_words() {
        let mut record = record(Direction::Inbound);
        record.sni = ServerName::read(Some("a\nb\"\u{1b}[0m\u{9b}".to_owned()));
        let line = Line::new(&record, &ending("plaintext_in_strict", ResponseFlag::Deny, None), false).json();
        assert!(!line.contains(['\n', '\u{1b}', '\u{9b}']), "{line}");
        let object: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&object["response_flags"], &object["response_code"]), (&"NR".into(), &0.into()));
        assert_eq!(object["response_code_details"], "filter_chain_not_found");
        assert_eq!(object["requested_server_name"], "a_b__[0m_");
        assert_eq!((&object["method"], &object["upstream_host"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    }
}
