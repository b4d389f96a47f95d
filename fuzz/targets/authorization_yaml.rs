//! AuthorizationPolicies by any author: decisions do not depend on the order of files or on the index.
//!
//! - A set without errors, loaded with its files in another order, decides the same and names the same rule.
//! - A set denies exactly what one of its DENY policies alone denies, and allows what is left if it has no ALLOW policy or one
//!   of them alone allows it. Alone a rule is filed differently.
//! - What is decided under DISABLE does not depend on who the peer is.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{
    Authorization, AuthorizationAction, AuthorizationPolicy, Authorizer, Condition, Facts, StringMatch,
};
use portcullis_policy::{Evaluation, MeshSettings, PolicySet, Source};

// 0xff is in no UTF-8 text; it parts the input into files.
fuzz_target!(|input: &[u8]| {
    let file = |(n, text): (usize, &[u8])| Source { file: format!("{n}.yaml"), text: text.to_vec() };
    let mut sources: Vec<Source> = input.split(|byte| *byte == 0xff).take(4).enumerate().map(file).collect();
    let loaded = PolicySet::load(&sources);
    let policies = loaded.set.authorization_policies();
    if !loaded.errors.is_empty() || policies.is_empty() {
        return;
    }
    sources.reverse();
    let reversed = PolicySet::load(&sources).set;
    let mesh = MeshSettings {
        trust_domains: vec!["cluster.local".to_owned(), "old.local".to_owned()],
        ..MeshSettings::default()
    };
    let peers = peers(policies);
    for policy in policies.iter().take(4) {
        let (namespace, labels) = (&policy.namespace, &policy.selector);
        let new = |set: &PolicySet| Authorizer::new(set, &mesh, namespace, labels, Evaluation::DryRun);
        let (whole, other) = (new(&loaded.set), new(&reversed));
        let alone: Vec<_> = policies.iter().map(|policy| (policy.action, new(&only(policy)))).collect();
        for facts in facts(&peers, policies) {
            let answer = whole.authorize(&facts);
            assert_eq!(shown(&answer), shown(&other.authorize(&facts)), "the order of files decides: {facts:?}");
            let of = |action| alone.iter().filter(move |(other, one)| *other == action && !one.is_empty()).map(|(_, one)| one);
            let denied = of(AuthorizationAction::Deny).any(|one| !one.authorize(&facts).is_allowed());
            let mut allows = of(AuthorizationAction::Allow).peekable();
            let allowed = allows.peek().is_none() || allows.any(|one| one.authorize(&facts).is_allowed());
            assert_eq!(answer.is_allowed(), !denied && allowed, "{facts:?} {answer:?}");
        }
    }
});

fn only(policy: &Arc<AuthorizationPolicy>) -> PolicySet {
    PolicySet::from_parts([], [AuthorizationPolicy::clone(policy)])
}

fn shown(answer: &Authorization<'_>) -> (bool, Option<(String, usize)>) {
    let by = match answer {
        Authorization::Allowed(by) | Authorization::Denied(by) => Some((by.label.to_string(), by.rule)),
        Authorization::Unrestricted | Authorization::NotAllowed(_) => None,
    };
    (answer.is_allowed(), by)
}

/// Identities that rules name, and some that they may not.
fn peers(policies: &[Arc<AuthorizationPolicy>]) -> Vec<SpiffeId> {
    let mut named = vec!["cluster.local/ns/shop/sa/web".to_owned(), "old.local/ns/a/sa/b".to_owned()];
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    for condition in rules.flat_map(|rule| rule.conditions().collect::<Vec<_>>()).take(16) {
        if let Condition::Principal(values) = condition {
            named.extend(values.values().iter().chain(values.not_values()).map(|form| match form {
                StringMatch::Exact(text) => text.clone(),
                StringMatch::Prefix(text) => format!("{text}x"),
                StringMatch::Suffix(text) => format!("cluster.local/ns/x{text}"),
                StringMatch::Present => "x".to_owned(),
            }));
        }
    }
    named.iter().take(16).filter_map(|text| SpiffeId::parse(&format!("spiffe://{text}")).ok()).collect()
}

fn facts<'p>(peers: &'p [SpiffeId], policies: &[Arc<AuthorizationPolicy>]) -> Vec<Facts<'p>> {
    let mut addresses: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()];
    let mut ports = BTreeMap::from([(8080, ())]);
    for condition in policies.iter().flat_map(|policy| &policy.rules).flat_map(|rule| rule.conditions().collect::<Vec<_>>()).take(16) {
        match condition {
            Condition::SourceIp(values) => addresses.extend(values.values().iter().map(|block| block.network())),
            Condition::Port(values) => ports.extend(values.values().iter().map(|port| (*port, ()))),
            _ => {}
        }
    }
    let mut all = Vec::new();
    for peer in peers.iter().map(Some).chain([None]) {
        for source in addresses.iter().take(4).copied() {
            for port in ports.keys().take(4).copied() {
                all.push(Facts { peer, source, remote: source, destination: source, port, sni: Some("cart.shop") });
            }
        }
    }
    all
}
