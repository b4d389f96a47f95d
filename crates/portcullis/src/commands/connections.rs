//! `portcullis connections`: the connections that are open now, as `istioctl ztunnel-config connections` lists them.

use portcullis_api::{Direction, OpenConnection, OpenConnections, ProxyInfo, Transport};
use serde::Serialize;

use super::age;
use super::proxies::{ProxiesArgs, proxy_info};
use super::selection::{SelectionArgs, title};
use crate::exit::{Exit, Outcome};
use crate::output::{Cell, List, ListArgs, Style, Table};

/// List the connections that are open now, with the identity of the other side
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis connections
  portcullis connections cart.shop
  portcullis connections -n shop --proxies dns:mesh.internal -o json
  portcullis connections --direction inbound --mtls no")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only connections to the workload (inbound), or only those that it made (outbound)
    #[arg(long, value_name = "DIRECTION", value_parser = ["inbound", "outbound"])]
    direction: Option<String>,
    /// Only connections with mutual TLS, or only those without
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    mtls: Option<String>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// One connection, as programs read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    workload: String,
    namespace: String,
    #[serde(flatten)]
    connection: OpenConnection,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let answers = args.proxies.ask(|sidecar| async move {
        let proxy = proxy_info(&sidecar).await?;
        Ok((proxy, sidecar.get::<OpenConnections>("/connections").await?.connections))
    })?;
    let meant = args.selection.select(answers.answers, |answer| &answer.value.0)?;
    let mut items: Vec<Item> = Vec::new();
    for (proxy, connections) in meant.into_iter().map(|answer| answer.value) {
        items.extend(connections.into_iter().filter(|connection| args.wants(connection)).map(|one| item(&proxy, one)));
    }
    items.sort_by(|one, other| (&one.namespace, &one.workload).cmp(&(&other.namespace, &other.workload)));
    let list = List { kind: "ConnectionList", items: &items, unanswered: &answers.unanswered };
    args.list.print(&list, || args.list.table(&table(&items, args.list.is_wide())), name)?;
    Ok(Exit::Ok)
}

impl Args {
    fn wants(&self, connection: &OpenConnection) -> bool {
        let is_mtls = connection.transport == Transport::Mtls;
        self.direction.as_deref().is_none_or(|direction| direction == connection.direction.as_str())
            && self.mtls.as_deref().is_none_or(|wanted| (wanted == "yes") == is_mtls)
    }
}

fn item(proxy: &ProxyInfo, connection: OpenConnection) -> Item {
    Item { workload: proxy.name.clone(), namespace: proxy.namespace.clone(), connection }
}

fn name(Item { workload, namespace, connection }: &Item) -> String {
    format!("connection/{workload}.{namespace}/{}", connection.conn_id)
}

fn table(items: &[Item], wide: bool) -> Table {
    let columns = ["WORKLOAD", "DIRECTION", "LOCAL", "REMOTE", "REMOTE TARGET", "PROTOCOL", "MTLS", "PEER ID", "AGE"];
    let mut table = Table::new(columns);
    if wide {
        table = table.extend(["CONN ID", "PORT", "MODE", "POLICY", "RECEIVED", "SENT"]);
    }
    for Item { workload, namespace, connection } in items {
        let dialled = connection.destination.as_deref().unwrap_or("-");
        let (local, remote) = match connection.direction {
            Direction::Inbound => (dialled, connection.source.as_str()),
            Direction::Outbound => (connection.source.as_str(), dialled),
        };
        let (protocol, mtls) = match connection.transport {
            Transport::Mtls => ("TLS", Cell::styled("yes", Style::Good)),
            Transport::Tls => ("TLS", Cell::styled("no", Style::Warn)),
            Transport::Plaintext => ("TCP", Cell::styled("no", Style::Warn)),
            Transport::Unknown => ("-", "-".into()),
        };
        let age = connection.seconds().map_or_else(|| "-".to_owned(), age::short);
        table.push([
            title(&ProxyInfo { name: workload.clone(), namespace: namespace.clone(), ..ProxyInfo::default() }).into(),
            connection.direction.as_str().into(),
            local.into(),
            remote.into(),
            connection.service.as_deref().unwrap_or("-").into(),
            protocol.into(),
            mtls,
            connection.peer.as_deref().unwrap_or("-").into(),
            age.into(),
            connection.conn_id.to_string().into(),
            connection.port.as_str().into(),
            connection.mode.as_str().into(),
            connection.policy.as_str().into(),
            connection.bytes_received.to_string().into(),
            connection.bytes_sent.to_string().into(),
        ]);
    }
    table
}
