//! The columns of kubectl, and what `-o wide` adds.

use std::collections::BTreeMap;

use portcullis_manifest::Kind;
use portcullis_policy::{MeshSettings, PeerAuthentication, PolicySet};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::located::Located;

/// What rows are made from.
pub(super) struct Columns<'a> {
    pub(super) kind: Kind,
    pub(super) set: &'a PolicySet,
    pub(super) mesh: &'a MeshSettings,
    pub(super) now: i64,
}

impl Columns<'_> {
    /// The head, then a row for each.
    pub(super) fn rows(&self, all: &[Located], namespaces: bool, wide: bool) -> Vec<Vec<String>> {
        let namespace = namespaces.then_some("NAMESPACE");
        let own: &[&str] = match self.kind {
            Kind::PeerAuthentication => &["MODE", "AGE"],
            Kind::AuthorizationPolicy => &["ACTION", "AGE"],
            Kind::ServiceEntry => &["HOSTS", "LOCATION", "RESOLUTION", "AGE"],
            Kind::WorkloadEntry => &["AGE", "ADDRESS"],
            Kind::DestinationRule => &["HOST", "AGE"],
        };
        let more: &[&str] = match (wide, self.kind) {
            (false, _) => &[],
            (true, Kind::PeerAuthentication) => &["SCOPE", "SELECTOR", "PORTS", "STATUS", "FILE:LINE"],
            (true, Kind::AuthorizationPolicy) => &["SELECTOR", "STATUS", "FILE:LINE"],
            (true, _) => &["FILE:LINE"],
        };
        let head = namespace.into_iter().chain(["NAME"]).chain(own.iter().copied()).chain(more.iter().copied());
        let mut rows = vec![head.map(str::to_owned).collect::<Vec<_>>()];
        for found in all {
            let id = &found.object.id;
            let mut row: Vec<String> = namespaces.then(|| id.namespace.clone()).into_iter().collect();
            row.push(id.name.clone());
            row.extend(self.own(found));
            if wide {
                row.extend(self.wide(found));
            }
            rows.push(row);
        }
        rows
    }

    fn own(&self, found: &Located) -> Vec<String> {
        let text = |path: &[&str]| found.field(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let age = self.age(found);
        match found.kind() {
            Kind::PeerAuthentication => vec![text(&["spec", "mtls", "mode"]), age],
            Kind::AuthorizationPolicy => vec![text(&["spec", "action"]), age],
            Kind::ServiceEntry => {
                // A column of a list is JSON.
                let hosts = found.field(&["spec", "hosts"]).map(Value::to_string).unwrap_or_default();
                vec![hosts, text(&["spec", "location"]), text(&["spec", "resolution"]), age]
            }
            Kind::WorkloadEntry => vec![age, text(&["spec", "address"])],
            Kind::DestinationRule => vec![text(&["spec", "host"]), age],
        }
    }

    fn age(&self, found: &Located) -> String {
        let created = found.field(&["metadata", "creationTimestamp"]).and_then(Value::as_str);
        let created = created.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        created.map_or_else(|| "<unknown>".to_owned(), |created| age(self.now.saturating_sub(created.unix_timestamp())))
    }

    fn wide(&self, found: &Located) -> Vec<String> {
        let at = format!("{}:{}", found.file, found.object.line);
        let selector = found.field(&["spec", "selector", "matchLabels"]).and_then(Value::as_object);
        let shown = selector.map(|labels| {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
            labels.join(",")
        });
        let shown = shown.filter(|text| !text.is_empty());
        let is_dry_run =
            found.field(&["metadata", "annotations", "istio.io/dry-run"]).is_some_and(|value| value == "true");
        let none = || "<none>".to_owned();
        match found.kind() {
            Kind::PeerAuthentication => {
                let is_root = found.object.id.namespace == self.mesh.root_namespace;
                let scope = match (shown.is_some(), is_root) {
                    (true, _) => "workload",
                    (false, true) => "mesh",
                    (false, false) => "namespace",
                };
                let status = self.status(found);
                let ports = found.field(&["spec", "portLevelMtls"]).map(ports).filter(|text| !text.is_empty());
                vec![scope.to_owned(), shown.unwrap_or_else(none), ports.unwrap_or_else(none), status, at]
            }
            Kind::AuthorizationPolicy => {
                let status = if is_dry_run { "DryRun" } else { "Active" };
                vec![shown.unwrap_or_else(none), status.to_owned(), at]
            }
            _ => vec![at],
        }
    }

    /// Whether it can have an effect at all.
    fn status(&self, found: &Located) -> String {
        let id = &found.object.id;
        if let Some(it) =
            self.set.break_glass().iter().find(|it| it.policy.namespace == id.namespace && it.policy.name == id.name)
        {
            let word = if it.is_active(self.now) { "BreakGlass until" } else { "Ended" };
            return format!("{word} {}", it.until_text());
        }
        let own = |policy: &&PeerAuthentication| policy.namespace == id.namespace && policy.name == id.name;
        let Some(policy) = self.set.policies().iter().find(own) else { return "Invalid".to_owned() };
        if policy.dry_run {
            return "DryRun".to_owned();
        }
        if policy.namespace == self.mesh.root_namespace && !policy.selector.is_empty() {
            return "NoMatch".to_owned();
        }
        let rivals =
            self.set.policies().iter().filter(|other| {
                !other.dry_run && other.namespace == policy.namespace && other.selector == policy.selector
            });
        match rivals.filter(|other| other.precedes(policy)).min_by_key(|other| (other.created, other.name.clone())) {
            Some(winner) => format!("Shadowed by {}/{}", winner.namespace, winner.name),
            None => "Active".to_owned(),
        }
    }
}

/// `8080:DISABLE,9090:STRICT`.
fn ports(value: &Value) -> String {
    let Some(ports) = value.as_object() else { return String::new() };
    let sorted: BTreeMap<u32, &Value> =
        ports.iter().filter_map(|(port, mtls)| Some((port.parse().ok()?, mtls.get("mode")?))).collect();
    let shown: Vec<String> =
        sorted.iter().map(|(port, mode)| format!("{port}:{}", mode.as_str().unwrap_or_default())).collect();
    shown.join(",")
}

/// As kubectl shortens a duration.
fn age(seconds: i64) -> String {
    let Ok(total) = u64::try_from(seconds) else { return "<invalid>".to_owned() };
    let (minutes, hours, days) = (total / 60, total / 3600, total / 86_400);
    let with = |whole: u64, unit: &str, rest: u64, smaller: &str| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{smaller}") }
    };
    match (total, hours, days) {
        (..120, ..) => format!("{total}s"),
        (..600, ..) => with(minutes, "m", total % 60, "s"),
        (_, ..3, _) => format!("{minutes}m"),
        (_, ..8, _) => with(hours, "h", minutes % 60, "m"),
        (_, ..48, _) => format!("{hours}h"),
        (.., ..8) => with(days, "d", hours % 24, "h"),
        (.., ..730) => format!("{days}d"),
        (.., ..2920) => with(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Columns as kubectl aligns them.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn an_age_is_that_of_kubectl() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (10_500, "175m"),
            (19_800, "5h30m"),
            (172_000, "47h"),
            (216_000, "2d12h"),
            (31_535_999, "364d"),
            (-1, "<invalid>"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }
}
