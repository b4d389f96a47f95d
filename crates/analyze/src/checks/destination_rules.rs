//! PeerAuthentications against DestinationRules, as Kiali compares them.

use portcullis_manifest::ResourceKind;

use crate::code::Code;
use crate::finding::Finding;
use crate::input::{Input, Resource};

/// What a rule does for all hosts that it covers.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Tls {
    Mutual,
    Disable,
    Other,
}

/// Which hosts a rule covers.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Reach<'r> {
    Mesh,
    Namespace(&'r str),
    Host,
}

struct Rule<'r> {
    resource: &'r Resource,
    tls: Tls,
    reach: Reach<'r>,
}

pub(super) fn check(input: &Input<'_>) -> Vec<Finding> {
    let rules: Vec<Rule<'_>> = input.of(ResourceKind::DestinationRule).map(Rule::new).collect();
    let wide: Vec<&Resource> = input
        .of(ResourceKind::PeerAuthentication)
        .filter(|policy| policy.field(&["spec", "selector"]).is_none())
        .filter(|policy| policy.text(&["metadata", "annotations", "istio.io/dry-run"]) != Some("true"))
        .collect();
    let mut findings = Vec::new();
    for policy in &wide {
        match policy.text(&["spec", "mtls", "mode"]) {
            Some("DISABLE") => findings.extend(disabled(input, policy, &rules)),
            Some("STRICT") => {
                findings.extend(strict(input, policy, &rules));
                findings.extend(contradicted(input, policy, &rules));
            }
            _ => {}
        }
    }
    findings
}

impl<'r> Rule<'r> {
    fn new(resource: &'r Resource) -> Self {
        let tls = match resource.text(&["spec", "trafficPolicy", "tls", "mode"]) {
            Some("ISTIO_MUTUAL" | "MUTUAL") => Tls::Mutual,
            Some("DISABLE") => Tls::Disable,
            _ => Tls::Other,
        };
        let host = resource.text(&["spec", "host"]).unwrap_or_default();
        let namespace =
            host.strip_prefix("*.").and_then(|rest| rest.split_once(".svc.")).map(|(namespace, _)| namespace);
        let reach = match (host, namespace) {
            ("*.local" | "*", _) => Reach::Mesh,
            (_, Some(namespace)) if !namespace.contains('.') => Reach::Namespace(namespace),
            _ => Reach::Host,
        };
        Self { resource, tls, reach }
    }

    fn is(&self, reach: Reach<'_>, tls: Tls) -> bool {
        self.reach == reach && self.tls == tls
    }
}

fn at(policy: &Resource, code: Code, other: Option<&Rule<'_>>) -> Finding {
    let because = other.map(|rule| {
        let (id, file, line) = (&rule.resource.object.id, &rule.resource.file, rule.resource.object.line);
        format!(": DestinationRule {}/{} ({file}:{line})", id.namespace, id.name)
    });
    Finding { code, subject: policy.subject(), text: format!("{}{}", code.meaning(), because.unwrap_or_default()) }
}

/// mTLS is off, and a rule makes clients speak it.
fn disabled(input: &Input<'_>, policy: &Resource, rules: &[Rule<'_>]) -> Option<Finding> {
    let namespace = policy.object.id.namespace.as_str();
    let mesh_wide = || rules.iter().find(|rule| rule.is(Reach::Mesh, Tls::Mutual));
    if input.is_root(namespace) {
        return mesh_wide().map(|rule| at(policy, Code::Kia0506, Some(rule)));
    }
    let own = Reach::Namespace(namespace);
    if let Some(rule) = rules.iter().find(|rule| rule.is(own, Tls::Mutual)) {
        return Some(at(policy, Code::Kia0505, Some(rule)));
    }
    if rules.iter().any(|rule| rule.is(own, Tls::Disable)) {
        return None;
    }
    mesh_wide().map(|rule| at(policy, Code::Kia0505, Some(rule)))
}

/// Without auto mTLS, clients speak plaintext unless a rule says otherwise.
fn strict(input: &Input<'_>, policy: &Resource, rules: &[Rule<'_>]) -> Option<Finding> {
    let namespace = policy.object.id.namespace.as_str();
    let is_enabled = rules.iter().any(|rule| {
        rule.is(Reach::Mesh, Tls::Mutual)
            || !input.is_root(namespace) && rule.is(Reach::Namespace(namespace), Tls::Mutual)
    });
    if input.auto_mtls || is_enabled {
        return None;
    }
    let code = if input.is_root(namespace) { Code::Kia0401 } else { Code::Kia0501 };
    Some(at(policy, code, None))
}

/// mTLS is demanded, and a rule makes clients speak plaintext. The finding is about the rule.
fn contradicted(input: &Input<'_>, policy: &Resource, rules: &[Rule<'_>]) -> Vec<Finding> {
    let namespace = policy.object.id.namespace.as_str();
    let (reach, code) = match input.is_root(namespace) {
        true => (Reach::Mesh, Code::Kia0208),
        false => (Reach::Namespace(namespace), Code::Kia0207),
    };
    let wrong = rules.iter().filter(|rule| rule.is(reach, Tls::Disable));
    wrong
        .map(|rule| {
            let (id, file, line) = (&policy.object.id, &policy.file, policy.object.line);
            let text = format!("{}: PeerAuthentication {}/{} ({file}:{line})", code.meaning(), id.namespace, id.name);
            Finding { code, subject: rule.resource.subject(), text }
        })
        .collect()
}
