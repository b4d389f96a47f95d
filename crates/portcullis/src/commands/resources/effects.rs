//! What a change of the folder changes for connections.

use std::collections::BTreeSet;

use portcullis_policy::diff::{Client, Comparison, PortClass, WorkloadClass};
use portcullis_policy::{EffectivePolicy, Evaluation, MeshSettings, PolicySet};

/// One line for each port whose mode changes, and each class of clients that policies answer differently otherwise.
pub(super) fn effects(old: &PolicySet, new: &PolicySet, mesh: &MeshSettings) -> Vec<String> {
    let comparison = Comparison { old, new, mesh, evaluation: Evaluation::Enforced };
    let changes = match comparison.all_workloads() {
        Ok(changes) => changes,
        Err(error) => return vec![format!("effective changes are not listed: {error}")],
    };
    let mut lines = BTreeSet::new();
    for change in &changes {
        let WorkloadClass { namespace, labels, .. } = &change.workload;
        let mode =
            |set: &PolicySet| EffectivePolicy::resolve(set, mesh, namespace, labels).mode(change.witness.port).mode;
        let (was, now) = (mode(old), mode(new));
        let port = format!("{}:{}", workload(&change.workload), ports(&change.ports));
        lines.insert(if was == now {
            let word = |allow: bool| if allow { "allowed" } else { "denied" };
            let client = match change.client {
                Client::Mtls => "mTLS",
                Client::Plaintext => "plaintext",
                Client::Tls => "TLS of its own",
            };
            let peer = change.witness.peer.as_ref().map(|id| format!(" such as {id}")).unwrap_or_default();
            format!(
                "{port} {client}{peer}: {} -> {} ({})",
                word(change.was.allow),
                word(change.now.allow),
                change.now.reason
            )
        } else {
            format!("{port} {was} -> {now}")
        });
    }
    lines.into_iter().collect()
}

/// `shop/cart` by the label `app`, else by all labels.
fn workload(class: &WorkloadClass) -> String {
    let namespace = if class.any_other_namespace { "*" } else { class.namespace.as_str() };
    let labels: Vec<String> = match class.labels.get("app") {
        Some(app) if class.labels.len() == 1 => vec![app.clone()],
        _ => class.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
    };
    format!("{namespace}/{}", if labels.is_empty() { "*".to_owned() } else { labels.join(",") })
}

fn ports(ports: &PortClass) -> String {
    match ports {
        PortClass::One(port) => port.to_string(),
        PortClass::AllBut(_) => "*".to_owned(),
    }
}
