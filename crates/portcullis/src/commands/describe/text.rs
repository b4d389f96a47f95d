//! The description for people, under istioctl's headings.

use std::fmt::Write as _;

use super::report::{Authorization, Description, Observed, Port, Proxy};
use crate::commands::age;
use crate::commands::selection::TargetKind;
use crate::output::{Cell, ListArgs, Style, Table, clean};

pub(super) fn text(described: &Description, kind: TargetKind, list: ListArgs) -> String {
    let mut text = String::new();
    let mut line = |text_line: String| {
        let _infallible = writeln!(text, "{}", clean(&text_line));
    };
    let Description { workload, namespace, service, identity, labels, proxies, .. } = described;
    if kind == TargetKind::Service {
        line(format!("Service: {service}.{namespace}"));
        for port in described.ports.iter().filter_map(|port| port.port) {
            line(format!("   Port: {port}/TCP targets workload port {port}"));
        }
    }
    line(format!("Workload: {workload}.{namespace}"));
    line(format!("   Identity: {identity}"));
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    line(format!("   Labels: {}", if labels.is_empty() { "none".to_owned() } else { labels.join(",") }));
    for Proxy { address, state, version } in proxies {
        line(format!("   Proxy: {address} {state}, version {version}"));
    }
    for warning in &described.warnings {
        line(format!("WARNING: {warning}"));
    }
    text.push_str(&peer_authentication(described));
    text.push_str(&observed(described, list));
    text
}

fn peer_authentication(described: &Description) -> String {
    let mut text = String::from("Effective PeerAuthentication:\n");
    let otherwise = described.ports.iter().find(|port| port.port.is_none());
    if let Some(Port { mode, decided_by, .. }) = otherwise {
        let from = match (&decided_by.namespace, &decided_by.name) {
            (Some(_), Some(_)) => format!("from {} policy {}", decided_by.scope, decided_by.label()),
            _ => "the default, since no policy says anything".to_owned(),
        };
        let _infallible = writeln!(text, "   Workload mTLS mode: {:<13} ({})", mode.as_str(), clean(&from));
    }
    let own: Vec<&Port> =
        described.ports.iter().filter(|port| port.port.is_some() && port.decided_by.scope == "port").collect();
    if !own.is_empty() {
        text.push_str("   Port Level mTLS mode:\n");
    }
    for Port { port, mode, decided_by, .. } in own {
        let same = otherwise.is_some_and(|otherwise| otherwise.decided_by.label() == decided_by.label());
        let from = if same {
            "portLevelMtls, same policy".to_owned()
        } else {
            format!("portLevelMtls of {}", decided_by.label())
        };
        let shown = format!("{}: {}", port.unwrap_or_default(), mode.as_str());
        let _infallible = writeln!(text, "      {shown:<30} ({})", clean(&from));
    }
    let names = &described.applied_peer_authentication;
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let _infallible = writeln!(text, "Applied PeerAuthentication:\n   {}", clean(&names));
    if !described.applied_authorization.is_empty() {
        let policy = |Authorization { name, action }: &Authorization| format!("{name} ({action})");
        let policies: Vec<String> = described.applied_authorization.iter().map(policy).collect();
        let _infallible = writeln!(text, "Applied AuthorizationPolicy:\n   {}", clean(&policies.join(", ")));
    }
    text
}

fn observed(described: &Description, list: ListArgs) -> String {
    #[allow(clippy::cast_precision_loss, reason = "an age is far below 2^53 seconds")]
    let mut text = format!("Observed (over {}):\n", age::short(described.observed_seconds as f64));
    let mut table = Table::new(["PORT", "CONNECTIONS", "MUTUAL_TLS", "PLAINTEXT", "REJECTED", "WOULD BREAK IF STRICT"]);
    for Port { port, observed, .. } in &described.ports {
        let is_silent = observed.connections == 0 && observed.rejected == 0;
        if port.is_none() && is_silent {
            continue;
        }
        let Observed { connections, mutual_tls, plaintext, rejected, would_break_if_strict } = observed;
        let breaks = match would_break_if_strict.len() {
            0 => Cell::styled("none", Style::Good),
            count if count == 1 || list.is_wide() => {
                let names: Vec<&str> = would_break_if_strict.iter().map(String::as_str).collect();
                Cell::styled(names.join(", "), Style::Warn)
            }
            count => Cell::styled(format!("{count} clients"), Style::Warn),
        };
        table.push([
            port.map_or_else(|| "*".to_owned(), |port| port.to_string()).into(),
            connections.to_string().into(),
            share(*mutual_tls, *connections).into(),
            plaintext.to_string().into(),
            rejected.to_string().into(),
            breaks,
        ]);
    }
    for row in list.table(&table).lines() {
        let _infallible = writeln!(text, "   {row}");
    }
    text
}

/// The share over mutual TLS. 100% only if it is all; `-` where nothing came, so nothing is known.
fn share(part: u64, all: u64) -> String {
    match all {
        0 => "-".to_owned(),
        _ if part == all => "100%".to_owned(),
        _ => {
            let tenths = (u128::from(part) * 1000 / u128::from(all)).clamp(u128::from(part > 0), 999);
            format!("{}.{}%", tenths / 10, tenths % 10)
        }
    }
}
