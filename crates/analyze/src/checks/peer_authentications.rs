//! PeerAuthentications that exclude each other, match nothing, or are not portable.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_manifest::ResourceKind;
use portcullis_policy::PeerAuthentication;

use crate::code::Code;
use crate::finding::{Finding, Subject};
use crate::input::Input;

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for policy in input.set.policies() {
        if policy.dry_run {
            findings.push(about(policy, Code::DryRunNotPortable, Code::DryRunNotPortable.meaning().to_owned()));
            continue;
        }
        if !policy.selector.is_empty() && input.is_root(&policy.namespace) {
            let text = format!("{} is the root namespace, where a policy with a selector is ignored", policy.namespace);
            findings.push(about(policy, Code::RootSelector, text));
            continue;
        }
        findings.extend(rival(input, policy));
        findings.extend(matches_nothing(input, policy));
    }
    for it in input.set.break_glass() {
        let text = format!("{}; here it ends at {}", Code::BreakGlassNotPortable.meaning(), it.until_text());
        findings.push(about(&it.policy, Code::BreakGlassNotPortable, text));
    }
    findings
}

fn about(policy: &PeerAuthentication, code: Code, text: String) -> Finding {
    let subject = Subject {
        kind: Some(ResourceKind::PeerAuthentication.name().to_owned()),
        namespace: policy.namespace.clone(),
        name: policy.name.clone(),
        file: policy.file.clone(),
        line: policy.line,
    };
    Finding { code, subject, text }
}

/// Another policy of the same scope. Kiali names both, since neither is the wrong one by itself.
fn rival(input: &Input<'_>, policy: &PeerAuthentication) -> Option<Finding> {
    let others = input
        .set
        .policies()
        .iter()
        .filter(|other| !std::ptr::eq(*other, policy) && !other.dry_run && other.namespace == policy.namespace);
    let mut rivals =
        others.filter(|other| other.selector.is_empty() == policy.selector.is_empty() && meet(input, policy, other));
    let first = rivals.next()?;
    let code = if policy.selector.is_empty() { Code::Kia0002 } else { Code::Kia0003 };
    let (winner, effect) =
        if first.precedes(policy) { (first, "has no effect") } else { (policy, "is the one that holds") };
    let why = if winner.created == first.created && winner.created == policy.created { "by name" } else { "by age" };
    let text = format!(
        "{}: {}/{} ({}:{}) too; this one {effect} where both apply, {why}",
        code.meaning(),
        first.namespace,
        first.name,
        first.file,
        first.line
    );
    Some(about(policy, code, text))
}

/// Whether some workload has both selectors: equal ones, or a known workload that both match.
fn meet(input: &Input<'_>, one: &PeerAuthentication, other: &PeerAuthentication) -> bool {
    one.selector == other.selector
        || workloads(input, &one.namespace)
            .iter()
            .any(|labels| selects(&one.selector, labels) && selects(&other.selector, labels))
}

fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The labels of the workloads of a namespace that the directory knows, or whose sidecars were asked.
fn workloads<'a>(input: &Input<'a>, namespace: &str) -> BTreeSet<&'a BTreeMap<String, String>> {
    let entries = input.set.workload_entries().iter().filter(|entry| &*entry.meta.namespace == namespace);
    let services = input.set.service_entries().iter().filter(|entry| &*entry.meta.namespace == namespace);
    let inline = services.flat_map(|entry| &entry.endpoints).map(|endpoint| &*endpoint.labels);
    // An endpoint without labels says nothing about its workload.
    let sidecars =
        input.sidecars.unwrap_or_default().iter().filter(|it| it.namespace == namespace).map(|it| &it.labels);
    entries.map(|entry| &*entry.spec.labels).chain(inline).chain(sidecars).filter(|labels| !labels.is_empty()).collect()
}

fn matches_nothing(input: &Input<'_>, policy: &PeerAuthentication) -> Option<Finding> {
    let known = workloads(input, &policy.namespace);
    let none = !policy.selector.is_empty()
        && !known.is_empty()
        && !known.iter().any(|labels| selects(&policy.selector, labels));
    none.then(|| about(policy, Code::Kia0004, Code::Kia0004.meaning().to_owned()))
}
