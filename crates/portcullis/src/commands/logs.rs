//! `portcullis logs`: the connections that ended last, from the ring that each proxy keeps, whatever its log level is.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use portcullis_api::{EndedConnection, ProxyInfo, Recent, Transport};
use portcullis_discovery::AdminAddress;
use serde::Serialize;

use super::proxies::{Answer, ProxiesArgs};
use super::selection::{SelectionArgs, title};
use crate::exit::{Exit, Outcome};
use crate::output::{self, List, ListArgs, OutputFormat, Style, clean};

/// Between two questions of --follow.
const PAUSE: Duration = Duration::from_millis(500);

/// Show the connections that ended last, also where the log level is low: each proxy keeps about a thousand
///
/// Lines have the fields of the access log. With --follow, JSON is one object a line.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis logs --denied
  portcullis logs -f --mtls=no cart.shop
  portcullis logs --proxies proxies.yaml --denied --tail 20 -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only connections that were refused or failed
    #[arg(long)]
    denied: bool,
    /// Only connections with mutual TLS, or only those without
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    mtls: Option<String>,
    /// Go on with connections that end from now on
    #[arg(short, long)]
    follow: bool,
    /// Only the last so many of all proxies
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// One connection, and whose sidecar tells of it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Item {
    workload: String,
    namespace: String,
    #[serde(flatten)]
    connection: EndedConnection,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mesh = args.proxies.find()?;
    let path = path(args, None);
    let answers = mesh.ask(move |sidecar| {
        let path = path.clone();
        async move { sidecar.get::<Recent>(&path).await }
    })?;
    let mut seen = seen(&answers.answers);
    let meant = args.selection.select(answers.answers, |answer| &answer.value.proxy)?;
    let mut items = items(args, meant);
    let first = items.len().saturating_sub(args.tail.unwrap_or(usize::MAX));
    items.drain(..first);
    if !args.follow {
        let list = List { kind: "EndedConnectionList", items: &items, unanswered: &answers.unanswered };
        let color = args.list.is_coloured();
        args.list.print(&list, || items.iter().map(|item| line(item, color)).collect(), name)?;
        return Ok(Exit::Ok);
    }
    loop {
        print_lines(args, &items)?;
        mesh.pause(PAUSE);
        let after = seen.clone();
        let denied = args.denied;
        // One that does not answer now may do so later.
        let answers = mesh.rows(move |sidecar| {
            let after = after.get(&sidecar.target().address).copied();
            let path = path_of(denied, after);
            async move { sidecar.get::<Recent>(&path).await }
        });
        for Answer { target, value } in &answers.answers {
            if value.missed > 0 {
                let lost =
                    format!("{}: {} connections ended unseen, too fast for this command", target.address, value.missed);
                output::note(&lost);
            }
            seen.insert(target.address.clone(), value.newest);
        }
        let meant = answers.answers.into_iter().filter(|answer| args.selection.has(&answer.value.proxy)).collect();
        items = self::items(args, meant);
    }
}

fn path(args: &Args, after: Option<u64>) -> String {
    path_of(args.denied, after)
}

fn path_of(denied: bool, after: Option<u64>) -> String {
    let mut path = format!("/recent?denied={denied}");
    if let Some(after) = after {
        let _infallible = write!(path, "&after={after}");
    }
    path
}

fn seen(answers: &[Answer<Recent>]) -> HashMap<AdminAddress, u64> {
    answers.iter().map(|answer| (answer.target.address.clone(), answer.value.newest)).collect()
}

/// What is wanted of the answers, the oldest first.
fn items(args: &Args, answers: Vec<Answer<Recent>>) -> Vec<Item> {
    let mut items = Vec::new();
    for Recent { proxy, connections, .. } in answers.into_iter().map(|answer| answer.value) {
        let wanted = connections.into_iter().filter(|connection| {
            args.mtls.as_deref().is_none_or(|mtls| (mtls == "yes") == (connection.transport == Transport::Mtls))
        });
        items.extend(wanted.map(|connection| item(&proxy, connection)));
    }
    items.sort_by_key(|item| (item.connection.ended_at, item.connection.sequence));
    items
}

fn item(proxy: &ProxyInfo, connection: EndedConnection) -> Item {
    Item { workload: proxy.name.clone(), namespace: proxy.namespace.clone(), connection }
}

fn name(item: &Item) -> String {
    format!("connection/{}.{}/{}", item.workload, item.namespace, item.connection.conn_id)
}

fn print_lines(args: &Args, items: &[Item]) -> std::io::Result<()> {
    let color = args.list.is_coloured();
    for item in items {
        match args.list.output {
            OutputFormat::Json => output::json_line(item)?,
            OutputFormat::Yaml => {
                output::text("---\n")?;
                output::yaml(item)?;
            }
            OutputFormat::Name => output::text(&format!("{}\n", clean(&name(item))))?,
            _ => output::text(&line(item, color))?,
        }
    }
    Ok(())
}

/// A line with the keys of the access log.
fn line(item: &Item, color: bool) -> String {
    let EndedConnection { ended_at, direction, decision, source, .. } = &item.connection;
    let connection = &item.connection;
    let who =
        title(&ProxyInfo { name: item.workload.clone(), namespace: item.namespace.clone(), ..ProxyInfo::default() });
    let style = if decision == "allow" { Style::Plain } else { Style::Bad };
    let mut line =
        format!("{ended_at}   {}   {}   {}   ", clean(&who), direction.as_str(), style.paint(&clean(decision), color));
    let mut field = |key: &str, value: &str| {
        if !value.is_empty() && value != "-" {
            let quote = if value.contains([' ', '"', '=']) { "\"" } else { "" };
            let value = clean(value).replace('"', "\\\"");
            let _infallible = write!(line, "{key}={quote}{value}{quote} ");
        }
    };
    field("src.addr", source);
    field("dst.addr", connection.destination.as_deref().unwrap_or_default());
    field("dst.service", connection.service.as_deref().unwrap_or_default());
    field("peer", connection.peer.as_deref().unwrap_or_default());
    field("port", &connection.port.map(|port| port.to_string()).unwrap_or_default());
    field("mode", &connection.mode);
    field("transport", connection.transport.as_str());
    field("policy", &connection.policy);
    field("reason", &connection.reason);
    field("error", connection.error.as_deref().unwrap_or_default());
    field("hint", &connection.hint);
    field("duration", &format!("{}ms", connection.duration_ms));
    field("bytes_recv", &connection.bytes_received.to_string());
    field("bytes_sent", &connection.bytes_sent.to_string());
    field("conn_id", &connection.conn_id.to_string());
    line.truncate(line.trim_end().len());
    line.push('\n');
    line
}
