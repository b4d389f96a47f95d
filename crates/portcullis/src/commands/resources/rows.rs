//! The columns of kubectl, and what `-o wide` adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use portcullis_api::ProxyInfo;
use portcullis_manifest::ResourceKind;
use portcullis_policy::{MeshSettings, PeerAuthentication, PolicySet};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::located::Located;
use crate::commands::age;
use crate::files;
use crate::output::{Cell, Table};

/// What rows are made from.
pub(super) struct Columns<'a> {
    pub(super) kind: ResourceKind,
    pub(super) set: &'a PolicySet,
    pub(super) mesh: &'a MeshSettings,
    pub(super) now: i64,
    /// The sidecars that were asked; none if none was to be.
    pub(super) proxies: Option<&'a [ProxyInfo]>,
}

/// The most workloads that are named in a cell.
const MAX_NAMED: usize = 3;

impl Columns<'_> {
    /// Of a list of resources.
    pub(super) fn table(&self, all: &[Located], namespaces: bool, wide: bool) -> Table {
        let namespace = namespaces.then_some("NAMESPACE");
        let own: &[&str] = match self.kind {
            ResourceKind::PeerAuthentication => &["MODE", "AGE"],
            ResourceKind::AuthorizationPolicy => &["ACTION", "AGE"],
            ResourceKind::ServiceEntry => &["HOSTS", "LOCATION", "RESOLUTION", "AGE"],
            ResourceKind::WorkloadEntry => &["AGE", "ADDRESS"],
            ResourceKind::DestinationRule => &["HOST", "AGE"],
        };
        let more: &[&str] = match (wide, self.kind) {
            (false, _) => &[],
            (true, ResourceKind::PeerAuthentication) => {
                &["SCOPE", "SELECTOR", "PORTS", "WORKLOADS", "STATUS", "FILE:LINE"]
            }
            (true, ResourceKind::AuthorizationPolicy) => &["SELECTOR", "WORKLOADS", "STATUS", "FILE:LINE"],
            (true, _) => &["FILE:LINE"],
        };
        let head = namespace.into_iter().chain(["NAME"]).chain(own.iter().copied()).chain(more.iter().copied());
        let mut table = Table::of(head);
        for found in all {
            let id = &found.object.id;
            let mut row: Vec<String> = namespaces.then(|| id.namespace.clone()).into_iter().collect();
            row.push(id.name.clone());
            row.extend(self.own(found));
            if wide {
                row.extend(self.wide(found));
            }
            table.push(row.into_iter().map(Cell::from));
        }
        table
    }

    fn own(&self, found: &Located) -> Vec<String> {
        let text = |path: &[&str]| found.field(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let age = self.age(found);
        match found.kind() {
            ResourceKind::PeerAuthentication => vec![text(&["spec", "mtls", "mode"]), age],
            ResourceKind::AuthorizationPolicy => vec![text(&["spec", "action"]), age],
            ResourceKind::ServiceEntry => {
                // A column of a list is JSON.
                let hosts = found.field(&["spec", "hosts"]).map(Value::to_string).unwrap_or_default();
                vec![hosts, text(&["spec", "location"]), text(&["spec", "resolution"]), age]
            }
            ResourceKind::WorkloadEntry => vec![age, text(&["spec", "address"])],
            ResourceKind::DestinationRule => vec![text(&["spec", "host"]), age],
        }
    }

    fn age(&self, found: &Located) -> String {
        let created = found.field(&["metadata", "creationTimestamp"]).and_then(Value::as_str);
        let created = created.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        // Without a cluster nobody writes the time: it has been there since its file was written, at least.
        let since = created.map(OffsetDateTime::unix_timestamp).or_else(|| files::written(Path::new(&found.file)));
        since.map_or_else(|| "<unknown>".to_owned(), |since| age::kubectl(self.now.saturating_sub(since)))
    }

    /// The workloads that it selects, of the sidecars that were asked.
    fn workloads(&self, found: &Located) -> String {
        let Some(proxies) = self.proxies else { return "<unknown>".to_owned() };
        let labels = found.field(&["spec", "selector", "matchLabels"]).and_then(Value::as_object);
        let namespace = &found.object.id.namespace;
        let is_selected = |proxy: &&ProxyInfo| {
            (*namespace == self.mesh.root_namespace || *namespace == proxy.namespace)
                && labels.is_none_or(|labels| {
                    labels.iter().all(|(key, value)| proxy.labels.get(key).map(String::as_str) == value.as_str())
                })
        };
        let names: BTreeSet<&str> = proxies.iter().filter(is_selected).map(|proxy| proxy.name.as_str()).collect();
        match names.len() {
            0 => "<none>".to_owned(),
            1..=MAX_NAMED => names.into_iter().collect::<Vec<_>>().join(","),
            many => format!("{many} workloads"),
        }
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
            ResourceKind::PeerAuthentication => {
                let is_root = found.object.id.namespace == self.mesh.root_namespace;
                let scope = match (shown.is_some(), is_root) {
                    (true, _) => "workload",
                    (false, true) => "mesh",
                    (false, false) => "namespace",
                };
                let status = self.status(found);
                let ports = found.field(&["spec", "portLevelMtls"]).map(ports).filter(|text| !text.is_empty());
                let workloads = self.workloads(found);
                vec![scope.to_owned(), shown.unwrap_or_else(none), ports.unwrap_or_else(none), workloads, status, at]
            }
            ResourceKind::AuthorizationPolicy => {
                let status = if is_dry_run { "DryRun" } else { "Active" };
                vec![shown.unwrap_or_else(none), self.workloads(found), status.to_owned(), at]
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
