//! `portcullis proxy-config listener`: what is listened on, and what is accepted there.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use portcullis_api::{
    ConfigDump, DecidedMode, DecidingPolicy, GatewayListener, InboundListener, Mode, Route, Upstream,
};
use serde::Serialize;

use super::blocks::{Block, blocks, sort};
use crate::commands::proxies::{ProxiesArgs, proxy_info};
use crate::commands::selection::{SelectionArgs, title};
use crate::commands::values;
use crate::exit::{Exit, Outcome};
use crate::output::{Cell, List, ListArgs, Style, Table};

/// Show what a proxy listens on, and which connections it accepts there
///
/// One line for each kind of connection. A port with lines for `Trans: tls` and `Trans: raw_buffer` is PERMISSIVE, one with
/// `Trans: tls; App: TCP TLS` alone is STRICT. -o wide says so, and which policy decides.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy-config listener cart.shop
  portcullis pc l cart.shop --port 15006 -o wide
  portcullis pc l --admin cart:15000 --verbose=false")]
pub(super) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Only this address
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Only this port
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    port: Option<u16>,
    /// Only this type
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = ["HTTP", "TCP", "HTTP+TCP", "UNKNOWN"])]
    kind: Option<String>,
    /// A line for each kind of connection; with false, one for each listener
    #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    verbose: bool,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// One kind of connection at one listener.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    workload: String,
    namespace: String,
    addresses: String,
    port: u16,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "match")]
    matches: String,
    destination: String,
    mode: Option<Mode>,
    decided_by: Option<DecidingPolicy>,
}

pub(super) fn run(args: &Args) -> Outcome {
    let answers = args.proxies.ask(|sidecar| async move {
        Ok((proxy_info(&sidecar).await?, sidecar.get::<ConfigDump>("/config_dump").await?))
    })?;
    let meant = args.selection.select(answers.answers, |answer| &answer.value.0)?;
    let mut found: Vec<Block<Item>> = Vec::new();
    for (proxy, dump) in meant.into_iter().map(|answer| answer.value) {
        let mut items = items(&dump);
        items.retain(|item| args.wants(item));
        for item in &mut items {
            (item.workload, item.namespace) = (proxy.name.clone(), proxy.namespace.clone());
        }
        found.push(Block { proxy, items });
    }
    sort(&mut found);
    let items: Vec<Item> = found.iter().flat_map(|block| block.items.iter().cloned()).collect();
    let list = List { kind: "ListenerList", items: &items, unanswered: &answers.unanswered };
    let shown = || blocks(&found, |items| args.list.table(&table(items, args.verbose, args.list.is_wide())));
    let name = |item: &Item| {
        let proxy = portcullis_api::ProxyInfo {
            name: item.workload.clone(),
            namespace: item.namespace.clone(),
            ..portcullis_api::ProxyInfo::default()
        };
        format!("listener/{}/{}_{}", title(&proxy), item.addresses, item.port)
    };
    args.list.print(&list, shown, name)?;
    Ok(Exit::Ok)
}

impl Args {
    fn wants(&self, item: &Item) -> bool {
        self.port.is_none_or(|port| port == item.port)
            && self.address.is_none_or(|address| item.addresses == address.to_string())
            && self.kind.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case(item.kind))
    }
}

fn table(items: &[Item], verbose: bool, wide: bool) -> Table {
    if !verbose {
        let mut table = Table::new(["ADDRESSES", "PORT", "TYPE"]);
        let listeners: BTreeMap<_, _> = items.iter().map(|item| ((item.port, &item.addresses), item.kind)).collect();
        for ((port, addresses), kind) in listeners {
            table.push([addresses.as_str().into(), port.to_string().into(), kind.into()]);
        }
        return table;
    }
    let mut table = Table::new(["ADDRESSES", "PORT", "MATCH", "DESTINATION"]);
    if wide {
        table = table.extend(["MODE", "DECIDED BY"]);
    }
    for item in items {
        let mode = item.mode.map_or_else(|| Cell::from("-"), mode_cell);
        let by = item.decided_by.as_ref().map_or_else(|| "-".to_owned(), decided);
        let cells = [&item.addresses, &item.port.to_string(), &item.matches, &item.destination]
            .map(|text| Cell::from(text.as_str()));
        table.push(cells.into_iter().chain([mode, by.into()]));
    }
    table
}

/// A mode, coloured by how much it protects.
pub(in crate::commands) fn mode_cell(mode: Mode) -> Cell {
    let style = match mode {
        Mode::Strict => Style::Good,
        Mode::Permissive | Mode::Unknown => Style::Warn,
        Mode::Disable => Style::Bad,
    };
    Cell::styled(mode.as_str(), style)
}

/// `shop/default (policies/shop.yaml:1)`.
fn decided(by: &DecidingPolicy) -> String {
    match (&by.file, by.line) {
        (Some(file), Some(line)) => format!("{} ({file}:{line})", by.label()),
        _ => by.label(),
    }
}

/// Every line, in the order of ports as istioctl has it.
fn items(dump: &ConfigDump) -> Vec<Item> {
    let mut items = Vec::new();
    let modes = &dump.modes;
    for InboundListener { listen, port, .. } in &dump.inbound.ports {
        let decided = modes.ports.iter().find(|mode| mode.port == Some(*port)).unwrap_or(&modes.other_ports);
        inbound(&mut items, listen, None, &format!("Cluster: inbound|{port}||"), decided);
    }
    if let Some(listen) = &dump.inbound.transparent {
        transparent(&mut items, listen, dump);
    }
    for upstream in &dump.outbound.upstreams {
        push(&mut items, &upstream.listen, "TCP", "ALL".to_owned(), destination(upstream), None);
    }
    if let Some(listen) = &dump.outbound.transparent {
        for route in &dump.outbound.routes {
            for (matches, cluster) in routes(route) {
                push(&mut items, listen, "TCP", matches, cluster, None);
            }
        }
        let closed = dump.outbound.traffic_policy == "REGISTRY_ONLY";
        let otherwise = if closed { "BlackHoleCluster" } else { "PassthroughCluster" };
        push(&mut items, listen, "TCP", "ALL".to_owned(), otherwise.to_owned(), None);
    }
    for GatewayListener { listen, tls, routes } in &dump.gateway.listeners {
        let trans = if tls.is_some() { "Trans: tls" } else { "Trans: raw_buffer" };
        for route in routes {
            let names =
                if route.hosts.is_empty() { String::new() } else { format!("SNI: {}; ", route.hosts.join(",")) };
            push(&mut items, listen, "TCP", format!("{names}{trans}"), destination(route), None);
        }
    }
    for (listener, path) in [(&dump.health, "/healthz/ready"), (&dump.metrics, "/stats/prometheus")] {
        if let Some(listen) = &listener.listen {
            push(&mut items, listen, "HTTP", "ALL".to_owned(), format!("Inline Route: {path}*"), None);
        }
    }
    items.sort_by(|one, other| (one.port, &one.addresses).cmp(&(other.port, &other.addresses)));
    items
}

/// The listener for captured connections: every port with a mode of its own, and all others.
fn transparent(items: &mut Vec<Item>, listen: &str, dump: &ConfigDump) {
    if let Some((_, port)) = address(listen) {
        let own = format!("Addr: *:{port}");
        push(items, listen, "TCP", own, "Non-HTTP/Non-TCP".to_owned(), None);
    }
    for decided in &dump.modes.ports {
        let Some(port) = decided.port else { continue };
        inbound(items, listen, Some(&format!("*:{port}")), &format!("Cluster: inbound|{port}||"), decided);
    }
    inbound(items, listen, Some("*"), "InboundPassthroughCluster", &dump.modes.other_ports);
}

/// The lines of a mode: mTLS is recognised by ALPN, other TLS is passed through, and so is plaintext.
fn inbound(items: &mut Vec<Item>, listen: &str, dialled: Option<&str>, cluster: &str, decided: &DecidedMode) {
    let kinds: &[&str] = match decided.mode {
        Mode::Strict => &["Trans: tls; App: TCP TLS"],
        Mode::Permissive => &["Trans: tls; App: TCP TLS", "Trans: tls", "Trans: raw_buffer"],
        Mode::Disable => &[""],
        Mode::Unknown => &["Trans: unknown"],
    };
    for kind in kinds {
        let matches = match (*kind, dialled) {
            ("", None) => "ALL".to_owned(),
            (kind, None) => kind.to_owned(),
            ("", Some(dialled)) => format!("Addr: {dialled}"),
            (kind, Some(dialled)) => format!("{kind}; Addr: {dialled}"),
        };
        push(items, listen, "TCP", matches, cluster.to_owned(), Some(decided));
    }
}

/// The name of a destination, as Envoy calls its clusters.
fn destination(upstream: &Upstream) -> String {
    let (host, port) = upstream.address.rsplit_once(':').unwrap_or((&upstream.address, ""));
    format!("Cluster: outbound|{port}||{}", upstream.service.as_deref().unwrap_or(host))
}

/// Each destination of a route, and where it leads.
fn routes(route: &Route) -> Vec<(String, String)> {
    let any = vec![None];
    let ports: Vec<Option<u16>> =
        if route.ports.is_empty() { any } else { route.ports.iter().copied().map(Some).collect() };
    let mut lines = Vec::new();
    for name in route.hosts.iter().chain(&route.cidrs) {
        for port in &ports {
            let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
            let service = route.service.as_deref().unwrap_or(name);
            lines.push((format!("Addr: {name}:{port}"), format!("Cluster: outbound|{port}||{service}")));
        }
    }
    lines
}

fn push(
    items: &mut Vec<Item>,
    listen: &str,
    kind: &'static str,
    matches: String,
    destination: String,
    decided: Option<&DecidedMode>,
) {
    let (addresses, port) = address(listen).unwrap_or_else(|| (listen.to_owned(), 0));
    items.push(Item {
        workload: String::new(),
        namespace: String::new(),
        addresses,
        port,
        kind,
        matches,
        destination,
        mode: decided.map(|decided| decided.mode),
        decided_by: decided.map(|decided| decided.decided_by.clone()),
    });
}

fn address(listen: &str) -> Option<(String, u16)> {
    let address: SocketAddr = listen.parse().ok()?;
    Some((address.ip().to_string(), address.port()))
}

#[cfg(test)]
mod tests {
    use portcullis_api::{InboundListeners, Modes, OutboundListeners};

    use super::*;

    fn decided(port: Option<u16>, mode: Mode) -> DecidedMode {
        DecidedMode { port, mode, decided_by: DecidingPolicy::default() }
    }

    fn lines(dump: &ConfigDump) -> Vec<(String, String)> {
        items(dump).into_iter().map(|item| (item.matches, item.destination)).collect()
    }

    fn text(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(one, other)| ((*one).to_owned(), (*other).to_owned())).collect()
    }

    #[test]
    fn the_mode_of_a_port_shows_in_its_lines() {
        let dump = |mode| ConfigDump {
            inbound: InboundListeners {
                ports: vec![InboundListener { listen: "127.0.0.1:18080".to_owned(), port: 8080, app: String::new() }],
                transparent: None,
            },
            modes: Modes { ports: vec![decided(Some(8080), mode)], other_ports: decided(None, Mode::Permissive) },
            ..ConfigDump::default()
        };
        let cluster = "Cluster: inbound|8080||";
        assert_eq!(lines(&dump(Mode::Strict)), text(&[("Trans: tls; App: TCP TLS", cluster)]));
        let both = [("Trans: tls; App: TCP TLS", cluster), ("Trans: tls", cluster), ("Trans: raw_buffer", cluster)];
        assert_eq!(lines(&dump(Mode::Permissive)), text(&both));
        assert_eq!(lines(&dump(Mode::Disable)), text(&[("ALL", cluster)]));
    }

    #[test]
    fn captured_connections_are_told_apart_by_the_port_that_was_dialled() {
        let dump = ConfigDump {
            inbound: InboundListeners { ports: Vec::new(), transparent: Some("[::]:15006".to_owned()) },
            outbound: OutboundListeners {
                transparent: Some("[::]:15001".to_owned()),
                routes: vec![Route {
                    hosts: vec!["db.test".to_owned()],
                    ports: vec![5432],
                    service: Some("db.shop.svc.cluster.local".to_owned()),
                    ..Route::default()
                }],
                traffic_policy: "REGISTRY_ONLY".to_owned(),
                ..OutboundListeners::default()
            },
            modes: Modes { ports: vec![decided(Some(8080), Mode::Strict)], other_ports: decided(None, Mode::Disable) },
            ..ConfigDump::default()
        };
        let expected = [
            ("Addr: db.test:5432", "Cluster: outbound|5432||db.shop.svc.cluster.local"),
            ("ALL", "BlackHoleCluster"),
            ("Addr: *:15006", "Non-HTTP/Non-TCP"),
            ("Trans: tls; App: TCP TLS; Addr: *:8080", "Cluster: inbound|8080||"),
            ("Addr: *", "InboundPassthroughCluster"),
        ];
        assert_eq!(lines(&dump), text(&expected));
    }
}
