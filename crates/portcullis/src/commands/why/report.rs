//! The answer of `why`, for people and for programs.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use portcullis_api::{DecidingPolicy, EndedConnection, Explanation, Policies};
use portcullis_proxy::outcome::Reason;
use serde::Serialize;

use super::find::SeenConn;
use crate::commands::age;
use crate::commands::selection::title;
use crate::output::{Cell, MissingAnswer, Style, Table, clean};

/// What the proxy of the server says now about the port.
pub(super) struct Policy {
    pub(super) explanation: Option<Explanation>,
    pub(super) policies: Policies,
}

/// The answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    api_version: &'static str,
    kind: &'static str,
    /// What is asked about.
    connection: View,
    /// The same connection as the proxy of the other side tells of it.
    other_side: Option<View>,
    reason: String,
    /// What the reason means.
    meaning: String,
    hint: String,
    error: Option<String>,
    policy: Option<PolicyPlace>,
    /// What holds for the port now.
    explanation: Option<Explanation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unanswered: Vec<MissingAnswer>,
}

/// One side.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    workload: String,
    namespace: String,
    age_seconds: u64,
    /// What the client's address is called.
    client_name: Option<String>,
    #[serde(flatten)]
    connection: EndedConnection,
}

/// The policy that decided, and where it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PolicyPlace {
    label: String,
    kind: &'static str,
    file: Option<String>,
    line: Option<u32>,
    /// The rule of an AuthorizationPolicy, from 0.
    rule: Option<u16>,
    /// It is still in force.
    in_force: bool,
}

impl Report {
    pub(super) fn new(
        found: &SeenConn,
        other: Option<&SeenConn>,
        policy: Option<Policy>,
        name: impl Fn(IpAddr) -> Option<String>,
        unanswered: Vec<MissingAnswer>,
    ) -> Self {
        // The side that decided knows why; an alert tells the other one little.
        let decided = match other {
            Some(other) if says_little(found) && !says_little(other) && other.is_refused() => other,
            _ => found,
        };
        let connection = &decided.connection;
        let view = |seen: &SeenConn| View {
            workload: seen.proxy.name.clone(),
            namespace: seen.proxy.namespace.clone(),
            age_seconds: seen.age,
            client_name: ip(&seen.connection.source).and_then(&name),
            connection: seen.connection.clone(),
        };
        let place = policy.as_ref().and_then(|policy| place(connection, policy));
        Self {
            api_version: "portcullis/v1",
            kind: "RefusedConnection",
            reason: connection.reason.clone(),
            meaning: meaning(&connection.reason),
            hint: connection.hint.clone(),
            error: connection.error.clone(),
            policy: place.or_else(|| named(connection)),
            explanation: policy.and_then(|policy| policy.explanation),
            connection: view(found),
            other_side: other.map(view),
            unanswered,
        }
    }

    pub(super) fn name(&self) -> String {
        let View { workload, namespace, connection, .. } = &self.connection;
        format!("connection/{workload}.{namespace}/{}", connection.conn_id)
    }

    /// What a person on call reads: who, why, where it is written, what to do; then the evidence.
    pub(super) fn text(&self, colour: bool) -> String {
        let View { age_seconds, connection, .. } = &self.connection;
        let what = if connection.decision == "deny" { "was refused" } else { "ended" };
        #[allow(clippy::cast_precision_loss, reason = "an age is far below 2^53 seconds")]
        let ago = age::short(*age_seconds as f64);
        let (client, server) = self.ends();
        let mut text = format!(
            "{} -> {} {} {ago} ago ({}, conn_id {})\n\n",
            clean(&client),
            clean(&server),
            Style::Bad.paint(what, colour),
            connection.ended_at,
            connection.conn_id
        );
        let mut line = |key: &str, value: &str| {
            if !value.is_empty() {
                let _infallible = writeln!(text, "{key:<9}{}", clean(value));
            }
        };
        line(
            "Reason:",
            &if self.meaning.is_empty() { self.reason.clone() } else { format!("{}: {}", self.reason, self.meaning) },
        );
        line("Error:", self.error.as_deref().unwrap_or_default());
        line("Policy:", &self.policy.as_ref().map(|policy| policy.text(self.explanation.as_ref())).unwrap_or_default());
        line("Fix:", &self.hint);
        text.push('\n');
        text.push_str(&self.sides(colour));
        if let Some(explanation) = &self.explanation {
            text.push_str(&ladder(explanation, &self.server_title(), colour));
        }
        text
    }

    /// Client and server, by the best names that there are.
    fn ends(&self) -> (String, String) {
        let sides = || [Some(&self.connection), self.other_side.as_ref()].into_iter().flatten();
        let of = |inbound: bool| {
            sides().find(|view| (view.connection.direction == portcullis_api::Direction::Inbound) == inbound)
        };
        let (at_client, at_server) = (of(false), of(true));
        let source = &at_client.or(at_server).unwrap_or(&self.connection).connection.source;
        let client = match (at_client, at_server) {
            (Some(view), _) => view.title(),
            (None, Some(view)) => match (&view.connection.peer, &view.client_name) {
                (Some(peer), _) => peer.clone(),
                (None, Some(name)) => format!("{name} ({source})"),
                (None, None) => source.clone(),
            },
            (None, None) => source.clone(),
        };
        let server = match (at_server, at_client) {
            (Some(view), _) => format!("{}{}", view.title(), view.port()),
            (None, Some(view)) => {
                let dialled = view.connection.destination.as_deref().unwrap_or("?");
                view.connection
                    .service
                    .as_ref()
                    .map_or_else(|| dialled.to_owned(), |service| format!("{service} ({dialled})"))
            }
            (None, None) => "?".to_owned(),
        };
        (client, server)
    }

    fn server_title(&self) -> String {
        let sides = [Some(&self.connection), self.other_side.as_ref()];
        let server =
            sides.into_iter().flatten().find(|view| view.connection.direction == portcullis_api::Direction::Inbound);
        server.map(View::title).unwrap_or_default()
    }

    /// What each side says.
    fn sides(&self, colour: bool) -> String {
        let mut table =
            Table::new(["SEEN BY", "DIRECTION", "DECISION", "REASON", "TRANSPORT", "FROM", "TO", "PEER ID"]);
        for view in [Some(&self.connection), self.other_side.as_ref()].into_iter().flatten() {
            let connection = &view.connection;
            let style = if connection.decision == "deny" { Style::Bad } else { Style::Good };
            table.push([
                view.title().into(),
                connection.direction.as_str().into(),
                Cell::styled(connection.decision.as_str(), style),
                connection.reason.as_str().into(),
                connection.transport.as_str().into(),
                connection.source.as_str().into(),
                connection.destination.as_deref().unwrap_or("-").into(),
                connection.peer.as_deref().unwrap_or("-").into(),
            ]);
        }
        let mut text = table.render(true, colour);
        if self.other_side.is_none() {
            let whose = if self.connection.connection.direction == portcullis_api::Direction::Inbound {
                "client"
            } else {
                "server"
            };
            let _infallible = writeln!(text, "No proxy that was asked tells of the {whose}'s side.");
        }
        text
    }
}

impl View {
    fn title(&self) -> String {
        title(&portcullis_api::ProxyInfo {
            name: self.workload.clone(),
            namespace: self.namespace.clone(),
            ..portcullis_api::ProxyInfo::default()
        })
    }

    fn port(&self) -> String {
        self.connection.port.map(|port| format!(":{port}")).unwrap_or_default()
    }
}

impl PolicyPlace {
    fn text(&self, explanation: Option<&Explanation>) -> String {
        let Self { label, kind, file, line, rule, in_force } = self;
        let place = file.as_ref().zip(*line).map(|(file, line)| format!(" ({file}:{line})")).unwrap_or_default();
        let rule = rule.map(|rule| format!(", rule {rule}")).unwrap_or_default();
        let mode = explanation
            .filter(|explanation| *in_force && explanation.decided_by.label() == *label)
            .map(|explanation| format!(", {} by its {} scope", explanation.mode.as_str(), explanation.decided_by.scope))
            .unwrap_or_default();
        let gone = if *in_force { "" } else { "; it is not in force any more, or its proxy was not asked" };
        format!("{kind} {label}{place}{mode}{rule}{gone}")
    }
}

/// Reasons that say only that the other side refused.
fn says_little(seen: &SeenConn) -> bool {
    matches!(seen.connection.reason.as_str(), "peer_alert" | "peer_closed" | "handshake_reset" | "-" | "")
}

/// The sentence of the outcome table.
fn meaning(reason: &str) -> String {
    let known = Reason::ALL.iter().map(|known| known.outcome()).find(|known| known.label == reason);
    known.map(|known| known.doc.trim().to_owned()).unwrap_or_default()
}

/// Where the policy is written that the connection names, as far as it is still in force.
fn place(connection: &EndedConnection, policy: &Policy) -> Option<PolicyPlace> {
    let label = &connection.policy;
    let is_it = |namespace: &str, name: &str| *label == format!("{namespace}/{name}");
    let written = |kind, file: &str, line| {
        let (file, line) = (Some(file.to_owned()), Some(line));
        PolicyPlace { label: label.clone(), kind, file, line, rule: connection.rule, in_force: true }
    };
    let authorization = policy.policies.authorization_policies.iter().find(|one| is_it(&one.namespace, &one.name));
    // A PeerAuthentication may have the same name; reasons tell which of the two decided.
    if let Some(found) = authorization.filter(|_| connection.reason.starts_with("authorization")) {
        return Some(written("AuthorizationPolicy", &found.file, found.line));
    }
    let peer = policy.policies.policies.iter().find(|one| is_it(&one.namespace, &one.name));
    peer.map(|found| written("PeerAuthentication", &found.file, found.line))
}

/// Only its name is known.
fn named(connection: &EndedConnection) -> Option<PolicyPlace> {
    let kind =
        if connection.reason.starts_with("authorization") { "AuthorizationPolicy" } else { "PeerAuthentication" };
    let label = Some(&connection.policy).filter(|label| !matches!(label.as_str(), "" | "-"))?.clone();
    let in_force = label == "default";
    Some(PolicyPlace { label, kind, file: None, line: None, rule: connection.rule, in_force })
}

/// The ladder of `explain`, for the port that was dialled.
fn ladder(explanation: &Explanation, server: &str, colour: bool) -> String {
    let Explanation { port, mode, decided_by, ladder, .. } = explanation;
    let mut text = format!("\nPolicies of {} for port {port}, from wide to narrow:\n", clean(server));
    if ladder.is_empty() {
        let _infallible =
            writeln!(text, "=> {}: no policy says anything ({})", mode.as_str(), clean(&decided_by.scope));
        return text;
    }
    let mut table = Table::new(["", "SCOPE", "MODE", "POLICY"]);
    for rung in ladder {
        let mark = if rung.applied { "=>" } else { " " };
        table.push([mark.into(), rung.by.scope.as_str().into(), rung.mode.as_str().into(), location(&rung.by).into()]);
    }
    text.push_str(&table.render(false, colour));
    text
}

fn location(by: &DecidingPolicy) -> String {
    match (&by.file, by.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", by.label()),
        _ => by.label(),
    }
}

/// The IP address of `IP:PORT`.
fn ip(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().map(|address| address.ip().to_canonical())
}
