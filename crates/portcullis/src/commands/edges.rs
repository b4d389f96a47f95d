//! `portcullis edges`: who talks to whom, and whether it is secured, as `linkerd viz edges` lists it.

use std::collections::BTreeMap;

use portcullis_api::{Observations, Timestamp, Transport};
use portcullis_report::{self as report, Answer, Party, Window};
use portcullis_tls::Clock;
use serde::Serialize;

use super::observed::names;
use super::proxies::ProxiesArgs;
use super::selection::SelectionArgs;
use crate::exit::{Exit, Outcome};
use crate::output::{Cell, List, ListArgs, Style, Table};

/// List who talks to whom, and whether all of it is mutual TLS, from what all proxies observed
///
/// An edge that is seen by the proxies of both sides is one edge. SECURED: √ all connections over mutual TLS, a share, × none, or - if all were refused. Clients
/// without a sidecar have the name of their container (--docker), of the service directory or of reverse DNS, else their address.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis edges
  portcullis edges cart.shop --proxies proxies.yaml
  portcullis edges --docker -o wide
  portcullis edges -n shop -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// As long as the proxies remember.
const ALL: Window = Window { seconds: u64::MAX };

/// Who talks to whom, over all ports.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Edge {
    src: String,
    dst: String,
    src_namespace: String,
    dst_namespace: String,
    /// An identity is verified over mutual TLS only; that of plaintext is nobody's.
    client_id: Option<String>,
    server_id: Option<String>,
    /// Connections over mutual TLS.
    mutual_tls: u64,
    /// Connections over anything else.
    other: u64,
    /// Connections that were refused.
    refused: u64,
    /// What the others were carried by.
    transport: Transport,
    last_seen: Timestamp,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let asked = args.proxies.ask(|sidecar| async move { sidecar.get::<Observations>("/observations").await })?;
    let answers: Vec<Answer> = asked
        .answers
        .into_iter()
        .map(|answer| Answer { label: answer.target.address.to_string(), observations: Ok(answer.value) })
        .collect();
    let now = Timestamp::from_unix(Clock::system().now_unix());
    let mut edges = over_all_ports(report::edges(&answers, &names(&answers, &asked.containers), ALL, now));
    if args.selection.target.is_some() || args.selection.namespace.namespace.is_some() {
        let proxies =
            answers.into_iter().filter_map(|answer| answer.observations.ok()).map(|seen| seen.proxy).collect();
        // Fails if nobody is called that.
        let meant = args.selection.select(proxies, |proxy| proxy)?;
        let is_meant =
            |name: &str, namespace: &str| meant.iter().any(|proxy| proxy.name == name && proxy.namespace == namespace);
        edges.retain(|edge| is_meant(&edge.src, &edge.src_namespace) || is_meant(&edge.dst, &edge.dst_namespace));
    }
    let list = List { kind: "EdgeList", items: &edges, unanswered: &asked.unanswered };
    let name = |edge: &Edge| format!("edge/{}.{}/{}.{}", edge.src, edge.src_namespace, edge.dst, edge.dst_namespace);
    args.list.print(&list, || args.list.table(&table(&edges, args.list.is_wide())), name)?;
    Ok(Exit::Ok)
}

/// One edge for each pair, in the order of their names.
fn over_all_ports(edges: Vec<report::Edge>) -> Vec<Edge> {
    let mut merged: BTreeMap<(Party, Party), Edge> = BTreeMap::new();
    for report::Edge { from, to, mtls, tls, plaintext, refused, last_seen, .. } in edges {
        let edge = merged.entry((from, to)).or_default();
        edge.mutual_tls = edge.mutual_tls.saturating_add(mtls);
        edge.other = edge.other.saturating_add(tls).saturating_add(plaintext);
        edge.refused = edge.refused.saturating_add(refused);
        edge.transport = match edge.transport {
            _ if plaintext > 0 => Transport::Plaintext,
            Transport::Unknown if tls > 0 => Transport::Tls,
            before => before,
        };
        edge.last_seen = edge.last_seen.max(last_seen);
    }
    let named = |((from, to), edge): ((Party, Party), Edge)| {
        let proven = |party: &Party| party.identity.clone().filter(|_| edge.mutual_tls > 0);
        Edge {
            client_id: proven(&from),
            server_id: proven(&to),
            src: from.name,
            src_namespace: from.namespace.unwrap_or_default(),
            dst: to.name,
            dst_namespace: to.namespace.unwrap_or_default(),
            ..edge
        }
    };
    merged.into_iter().map(named).collect()
}

fn table(edges: &[Edge], wide: bool) -> Table {
    let mut table = Table::new(["SRC", "DST", "SRC_NS", "DST_NS", "CLIENT_ID", "SERVER_ID", "SECURED"]);
    if wide {
        table = table.extend(["MTLS", "OTHER", "REFUSED", "LAST SEEN"]);
    }
    for edge in edges {
        let [src, dst] = [&edge.src, &edge.dst].map(|name| Cell::from(name.as_str()));
        let [src_ns, dst_ns] = [&edge.src_namespace, &edge.dst_namespace]
            .map(|name| Cell::from(if name.is_empty() { "-" } else { name.as_str() }));
        let [client, server] = [&edge.client_id, &edge.server_id].map(|id| Cell::from(id.as_deref().unwrap_or("-")));
        let counts = [edge.mutual_tls, edge.other, edge.refused].map(|count| Cell::from(count.to_string()));
        let cells = [src, dst, src_ns, dst_ns, client, server, secured(edge)];
        table.push(cells.into_iter().chain(counts).chain([edge.last_seen.to_string().into()]));
    }
    table
}

fn secured(edge: &Edge) -> Cell {
    match (edge.mutual_tls, edge.other) {
        (0, 0) => Cell::from("-"),
        (_, 0) => Cell::styled(symbol("√", "yes"), Style::Good),
        (0, _) => Cell::styled(format!("{} {}", symbol("×", "no"), edge.transport.as_str()), Style::Bad),
        (secured, other) => Cell::styled(format!("{} {}", symbol("‼", "part"), share(secured, other)), Style::Warn),
    }
}

/// A share that is 100% only if it is all, and 0% only if it is nothing.
fn share(part: u64, rest: u64) -> String {
    let tenths = u128::from(part) * 1000 / (u128::from(part) + u128::from(rest)).max(1);
    let tenths = tenths.clamp(u128::from(part > 0), 1000);
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// The symbols of linkerd, or words where the terminal has no UTF-8.
fn symbol(symbol: &'static str, word: &'static str) -> &'static str {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default().to_lowercase();
    if locale.contains("utf-8") || locale.contains("utf8") { symbol } else { word }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_is_whole_only_if_nothing_is_missing() {
        assert_eq!(share(979, 21), "97.9%");
        assert_eq!(share(u64::MAX, 1), "99.9%");
        assert_eq!(share(1, u64::MAX), "0.1%");
    }
}
