//! `portcullis edges`: who talks to whom, and whether it is secured, as `linkerd viz edges` lists it.

mod merge;

use portcullis_api::Observations;

use self::merge::{Edge, Side, edges};
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

pub(crate) fn run(args: &Args) -> Outcome {
    let answers = args.proxies.ask(|sidecar| async move { sidecar.get::<Observations>("/observations").await })?;
    let sides: Vec<Side> =
        answers.answers.into_iter().map(|answer| Side { target: answer.target, seen: answer.value }).collect();
    let mut edges = edges(&sides, &answers.containers);
    if args.selection.target.is_some() || args.selection.namespace.namespace.is_some() {
        // Fails if nobody is called that.
        let meant = args.selection.select(sides, |side| &side.seen.proxy)?;
        let is_meant = |name: &str, namespace: &str| {
            meant.iter().any(|side| side.seen.proxy.name == name && side.seen.proxy.namespace == namespace)
        };
        edges.retain(|edge| is_meant(&edge.src, &edge.src_namespace) || is_meant(&edge.dst, &edge.dst_namespace));
    }
    let list = List { kind: "EdgeList", items: &edges, unanswered: &answers.unanswered };
    let name = |edge: &Edge| format!("edge/{}.{}/{}.{}", edge.src, edge.src_namespace, edge.dst, edge.dst_namespace);
    args.list.print(&list, || args.list.table(&table(&edges, args.list.is_wide())), name)?;
    Ok(Exit::Ok)
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
