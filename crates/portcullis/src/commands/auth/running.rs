//! Of running proxies: whether clients and policies fit.

use portcullis_api::{
    AuthorizationPolicy, DecidingPolicy, Direction, Explanation, Mode, Observation, Observations, Policies, ProxyInfo,
    Timestamp, Transport,
};
use serde::Serialize;

use crate::commands::proxies::ProxiesArgs;
use crate::commands::selection::{SelectionArgs, title};
use crate::exit::{Exit, Outcome};
use crate::output::{Cell, List, ListArgs, Style, Table, clean};

/// The reason of a client that sent nothing before the deadline: a server speaks first there, or somebody only looks whether the port is open.
const SILENT: &str = "silent_client";

/// Whether clients and policies of a port fit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
enum Status {
    #[serde(rename = "OK")]
    Ok,
    #[serde(rename = "CONFLICT")]
    Conflict,
    #[serde(rename = "SILENT")]
    Silent,
    #[serde(rename = "PLAINTEXT-SEEN")]
    PlaintextSeen,
    #[serde(rename = "SHADOWED")]
    Shadowed,
}

/// One port of one workload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    host: String,
    /// `null`: every other port.
    port: Option<u16>,
    status: Status,
    server: Mode,
    /// What clients sent.
    client: &'static str,
    authn_policy: DecidingPolicy,
    /// Policies of the same scope that have no effect.
    shadowed: Vec<String>,
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    workload: String,
    namespace: String,
    ports: Vec<Item>,
    /// In the order of evaluation.
    authorization: Vec<AuthorizationPolicy>,
}

/// What one proxy answers.
struct Answered {
    seen: Observations,
    policies: Policies,
    explanations: Vec<Explanation>,
}

pub(super) fn run(selection: &SelectionArgs, proxies: &ProxiesArgs, list: ListArgs) -> Outcome {
    let answers = proxies.ask(|sidecar| async move {
        let seen = sidecar.get::<Observations>("/observations").await?;
        let policies = sidecar.get::<Policies>("/policies").await?;
        let mut explanations = Vec::new();
        // A port that nothing names, for all others.
        for port in seen.ports.iter().map(|port| port.port.unwrap_or(u16::MAX)) {
            explanations.push(sidecar.get(&format!("/explain?port={port}")).await?);
        }
        Ok(Answered { seen, policies, explanations })
    })?;
    let meant = selection.select(answers.answers, |answer| &answer.value.seen.proxy)?;
    let mut blocks: Vec<Block> = meant.into_iter().map(|answer| block(answer.value)).collect();
    blocks.sort_by(|one, other| (&one.namespace, &one.workload).cmp(&(&other.namespace, &other.workload)));
    let written = List { kind: "AuthList", items: &blocks, unanswered: &answers.unanswered };
    let text = || blocks.iter().map(|block| text(block, list)).collect::<Vec<_>>().join("\n");
    list.print(&written, text, |block| format!("workload/{}.{}", block.workload, block.namespace))?;
    let fits = blocks.iter().flat_map(|block| &block.ports).all(|port| port.status == Status::Ok);
    Ok(if fits { Exit::Ok } else { Exit::Failure })
}

fn block(Answered { seen, policies, explanations }: Answered) -> Block {
    let Observations { proxy, ports, observations, .. } = seen;
    let named: Vec<u16> = ports.iter().filter_map(|port| port.port).collect();
    let items = ports.iter().zip(&explanations).map(|(port, explanation)| {
        let is_of = |one: &&Observation| {
            one.direction == Direction::Inbound
                && port.port.map_or_else(|| !named.contains(&one.port), |port| one.port == port)
        };
        let clients: Vec<&Observation> = observations.iter().filter(is_of).collect();
        let shadowed: Vec<String> = explanation
            .ignored
            .iter()
            .filter(|ignored| ignored.reason == "shadowed")
            .map(|ignored| ignored.by.label())
            .collect();
        Item {
            host: format!("{}.{}.svc.cluster.local", proxy.service, proxy.namespace),
            port: port.port,
            status: status(port.mode, &clients, policies.loaded_at, !shadowed.is_empty()),
            server: port.mode,
            client: client(&clients),
            authn_policy: port.decided_by.clone(),
            shadowed,
        }
    });
    let items = items.collect();
    let mut authorization: Vec<_> =
        policies.authorization_policies.into_iter().filter(|policy| policy.applies_to(&proxy)).collect();
    let order = |action: &str| ["DENY", "ALLOW", "AUDIT"].iter().position(|known| *known == action);
    authorization.sort_by(|one, other| {
        let key = |policy: &AuthorizationPolicy| (order(&policy.action), policy.namespace.clone(), policy.name.clone());
        key(one).cmp(&key(other))
    });
    Block { workload: proxy.name, namespace: proxy.namespace, ports: items, authorization }
}

fn status(mode: Mode, clients: &[&Observation], loaded: Option<Timestamp>, shadowed: bool) -> Status {
    // What was refused under older policies is no conflict with these.
    let since = loaded.unwrap_or_default();
    let refused = |one: &&Observation| one.last_refusal.as_ref().is_some_and(|last| last.at >= since);
    let is_plain = |one: &Observation| one.transport != Transport::Mtls;
    if mode == Mode::Strict {
        let not_let_in = || clients.iter().filter(|one| is_plain(one) && one.refused > 0 && refused(one));
        // Who sent nothing has not shown what it speaks.
        let is_silent = |one: &&Observation| one.last_refusal.as_ref().is_some_and(|last| last.reason == SILENT);
        if not_let_in().any(|one| !is_silent(one)) {
            return Status::Conflict;
        }
        if not_let_in().next().is_some() {
            return Status::Silent;
        }
    }
    if mode != Mode::Strict && clients.iter().any(|one| is_plain(one) && one.allowed > 0) {
        return Status::PlaintextSeen;
    }
    if shadowed { Status::Shadowed } else { Status::Ok }
}

/// In the words of DestinationRule, in which tls-check had them.
fn client(clients: &[&Observation]) -> &'static str {
    let any = |mtls: bool| {
        clients
            .iter()
            .any(|one| (one.transport == Transport::Mtls) == mtls && one.allowed.saturating_add(one.refused) > 0)
    };
    match (any(true), any(false)) {
        (true, false) => "ISTIO_MUTUAL",
        (false, true) => "DISABLE",
        (true, true) => "ISTIO_MUTUAL,DISABLE",
        (false, false) => "-",
    }
}

fn text(block: &Block, list: ListArgs) -> String {
    let mut table = Table::new(["HOST:PORT", "STATUS", "SERVER", "CLIENT", "AUTHN POLICY", "SCOPE"]);
    if list.is_wide() {
        table = table.extend(["WHERE", "SHADOWED"]);
    }
    for Item { host, port, status, server, client, authn_policy, shadowed } in &block.ports {
        let (word, style) = match status {
            Status::Ok => ("OK", Style::Good),
            Status::Conflict => ("CONFLICT", Style::Bad),
            Status::Silent => ("SILENT", Style::Warn),
            Status::PlaintextSeen => ("PLAINTEXT-SEEN", Style::Warn),
            Status::Shadowed => ("SHADOWED", Style::Warn),
        };
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let at = authn_policy.file.as_ref().zip(authn_policy.line).map(|(file, line)| format!("{file}:{line}"));
        table.push([
            format!("{host}:{port}").into(),
            Cell::styled(word, style),
            server.as_str().into(),
            (*client).into(),
            authn_policy.label().into(),
            authn_policy.scope.as_str().into(),
            at.unwrap_or_else(|| "-".to_owned()).into(),
            if shadowed.is_empty() { "-".into() } else { shadowed.join(",").into() },
        ]);
    }
    let mut text = list.table(&table);
    text.push('\n');
    if block.authorization.is_empty() {
        let proxy =
            ProxyInfo { name: block.workload.clone(), namespace: block.namespace.clone(), ..ProxyInfo::default() };
        text.push_str(&format!(
            "no AuthorizationPolicy applies to {}, so every connection that the mode accepts is allowed\n",
            clean(&title(&proxy))
        ));
        return text;
    }
    let mut rules = Table::new(["ACTION", "AuthorizationPolicy", "RULES"]);
    if list.is_wide() {
        rules = rules.extend(["WHERE", "NOTES"]);
    }
    for policy in &block.authorization {
        let AuthorizationPolicy { action, namespace, name, rules: count, file, line, dry_run, .. } = policy;
        rules.push([
            action.as_str().into(),
            format!("{name}.{namespace}").into(),
            // As istioctl names an ALLOW policy without rules.
            if *count == 0 { "_anonymous_match_nothing_".into() } else { count.to_string().into() },
            format!("{file}:{line}").into(),
            if *dry_run { "dry run: decides nothing".into() } else { "".into() },
        ]);
    }
    text.push_str(&list.table(&rules));
    text
}

#[cfg(test)]
mod tests {
    use portcullis_api::{Client, RefusedFor};

    use super::*;

    fn seen(transport: Transport, allowed: u64, refused_at: Option<i64>) -> Observation {
        let last_refusal = refused_at.map(|at| RefusedFor { at: Timestamp::from_unix(at), ..RefusedFor::default() });
        Observation {
            direction: Direction::Inbound,
            port: 80,
            transport,
            peer: Client::default(),
            allowed,
            refused: u64::from(refused_at.is_some()),
            bytes_received: 0,
            bytes_sent: 0,
            first_seen: Timestamp::default(),
            last_seen: Timestamp::default(),
            last_refusal,
            days: Vec::new(),
        }
    }

    #[test]
    fn the_reason_of_silent_clients_exists() {
        assert_eq!(portcullis_proxy::outcome::Reason::SilentClient.label(), SILENT);
    }

    #[test]
    fn a_port_is_ok_only_if_its_clients_send_what_it_demands() {
        let of = |mode, clients: &[Observation], shadowed| {
            status(mode, &clients.iter().collect::<Vec<_>>(), Some(Timestamp::from_unix(10)), shadowed)
        };
        let (mtls, plain) = (seen(Transport::Mtls, 1, None), seen(Transport::Plaintext, 1, None));
        let (refused, before) = (seen(Transport::Plaintext, 0, Some(11)), seen(Transport::Plaintext, 9, Some(9)));
        assert_eq!(of(Mode::Strict, std::slice::from_ref(&mtls), false), Status::Ok);
        assert_eq!(of(Mode::Strict, &[mtls.clone(), refused.clone()], true), Status::Conflict);
        let mut silent = refused.clone();
        silent.last_refusal.as_mut().unwrap().reason = SILENT.to_owned();
        assert_eq!(of(Mode::Strict, &[mtls.clone(), silent.clone()], false), Status::Silent);
        assert_eq!(of(Mode::Strict, &[silent, refused.clone()], false), Status::Conflict);
        assert_eq!(of(Mode::Strict, &[mtls.clone(), before], false), Status::Ok, "under older policies");
        assert_eq!(of(Mode::Permissive, &[mtls.clone(), plain.clone()], true), Status::PlaintextSeen);
        assert_eq!(of(Mode::Permissive, &[mtls.clone(), refused], false), Status::Ok, "refused for another reason");
        assert_eq!(of(Mode::Permissive, std::slice::from_ref(&mtls), true), Status::Shadowed);
        assert_eq!(client(&[&mtls, &plain]), "ISTIO_MUTUAL,DISABLE");
        assert_eq!((client(&[&mtls]), client(&[&plain]), client(&[])), ("ISTIO_MUTUAL", "DISABLE", "-"));
    }
}
