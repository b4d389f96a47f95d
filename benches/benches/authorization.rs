//! A decision by the number of AuthorizationPolicies that apply to the workload: it must not grow with them.
//!
//! In each set the rules differ in what the name says (in the mix each policy has a rule of each kind), and one of them, in the
//! middle, matches the connection. `refused` asks for a connection that none matches.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set its scene has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use criterion::Criterion;
use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{Authorizer, Facts};
use portcullis_policy::{Evaluation, MeshSettings, PolicySet, Source};

/// What rules name.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Principals,
    Namespaces,
    Ports,
    Mix,
}

impl Kind {
    /// The rule of a policy, where the policy of the middle matches the connection.
    fn rule(self, n: usize, middle: usize) -> String {
        let name = |prefix: &str| if n == middle { "ours".to_owned() } else { format!("{prefix}{n}") };
        // More policies than ports: they repeat, and only the one of the middle has the connection's.
        let port = if n == middle { 8080 } else { 10_000 + n % 50_000 };
        match self {
            Self::Principals => {
                format!("from: [{{source: {{principals: [cluster.local/ns/shop/sa/{}]}}}}]", name("account"))
            }
            Self::Namespaces => format!("from: [{{source: {{namespaces: [{}]}}}}]", name("namespace")),
            Self::Ports => format!("to: [{{operation: {{ports: ['{port}']}}}}]"),
            Self::Mix => [
                Self::Principals.rule(n, middle),
                format!("from: [{{source: {{namespaces: [namespace{n}], notPrincipals: ['*/sa/admin']}}}}]"),
                format!("from: [{{source: {{principals: ['cluster.local/ns/team{n}/*']}}}}]"),
                format!("from: [{{source: {{ipBlocks: ['10.{}.{}.0/24']}}}}]", n / 200 % 200, n % 200),
                Self::Ports.rule(n, usize::MAX),
            ]
            .join("\n  - "),
        }
    }
}

fn set(kind: Kind, count: usize) -> PolicySet {
    let mut texts = Vec::new();
    for n in 0..count {
        if n % 100 == 0 {
            texts.push(String::new());
        }
        let text = texts.last_mut().unwrap();
        write!(
            text,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{n:05}, namespace: shop}}\nspec:\n  \
             rules:\n  - {}\n",
            kind.rule(n, count / 2)
        )
        .unwrap();
    }
    let source = |(n, text): (usize, String)| Source { file: format!("{n}.yaml"), text: text.into_bytes() };
    let loaded = PolicySet::load(&texts.into_iter().enumerate().map(source).collect::<Vec<_>>());
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors.first());
    assert_eq!(loaded.set.authorization_policies().len(), count);
    loaded.set
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let ours = SpiffeId::parse("spiffe://cluster.local/ns/ours/sa/ours").unwrap();
    let shop = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/ours").unwrap();
    let other = SpiffeId::parse("spiffe://cluster.local/ns/elsewhere/sa/nobody").unwrap();
    for kind in [Kind::Principals, Kind::Namespaces, Kind::Ports, Kind::Mix] {
        for count in [1, 100, 10_000] {
            let mut group = criterion.benchmark_group(format!("authorization, {kind:?}, {count}"));
            group.sample_size(30).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
            let authorizer = Authorizer::new(
                &set(kind, count),
                &MeshSettings::default(),
                "shop",
                &BTreeMap::new(),
                Evaluation::Enforced,
            );
            let source = "192.0.2.1".parse().unwrap();
            let peer = if matches!(kind, Kind::Namespaces) { &ours } else { &shop };
            let allowed =
                Facts { peer: Some(peer), source, remote: source, destination: source, port: 8080, sni: Some("shop") };
            let refused = Facts { peer: Some(&other), port: 81, ..allowed };
            for (name, facts, expected) in [("allowed", allowed, true), ("refused", refused, false)] {
                assert_eq!(authorizer.authorize(&facts).is_allowed(), expected);
                group.bench_function(name, |bencher| {
                    bencher.iter(|| authorizer.authorize(black_box(&facts)).is_allowed());
                });
            }
            group.finish();
        }
    }
    criterion.final_summary();
}
