//! Random sets of policies and connections whose names come from small alphabets, so that they meet; and the plain evaluation:
//! the rules of the specification, read from the public fields of the policies, without index, order or preparation.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis_identity::SpiffeId;
use portcullis_policy::authorization::{
    Authorization, AuthorizationAction, AuthorizationPolicy, Authorizer, Condition, Facts, NamespaceMatch, Rule,
    ServiceAccount, StringMatch, Values,
};
use portcullis_policy::{Cidr, Documentation, Evaluation, MeshSettings, PolicySet};
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) const ROOT: &str = "istio-system";
pub(crate) const NAMESPACES: [&str; 3] = [ROOT, "shop", "billing"];
pub(crate) const PORTS: [u16; 4] = [80, 8080, 8443, 9999];

pub(crate) const PRINCIPALS: [&str; 16] = [
    "td/ns/a/sa/x",
    "td/ns/a/sa/y",
    "td/ns/b/sa/x",
    "old/ns/a/sa/x",
    "cluster.local/ns/a/sa/x",
    "t*/ns/a/sa/x",
    "*d/ns/a/sa/x",
    "*/ns/a/sa/x",
    "td/ns/a/*",
    "td/ns/a/sa/*",
    "cluster.local/ns/a/*",
    "*/sa/x",
    "*x",
    "spiffe://td/ns/a/sa/x",
    "*spiffe://td/ns/a/sa/x",
    "*",
];
const TRUST_DOMAINS: [&str; 8] = ["td", "old", "cluster.local", "t*", "*d", "*", "other", "td/*"];
const NAMESPACE_PATTERNS: [&str; 9] = ["a", "b", "a*", "*a", "a*b", "*", "**", "ns", "a/sa"];
const SERVICE_ACCOUNTS: [(&str, &str); 4] = [("a", "x"), ("a", "y"), ("b", "x"), ("aab", "x")];
const RANGES: [&str; 6] = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32", "::/0"];
const SNIS: [&str; 6] = ["a.test", "b.test", "*.test", "a*", "*", "A.test"];

const DOMAINS: [&str; 5] = ["td", "old", "cluster.local", "other", "ns"];
const PATHS: [&str; 12] = [
    "",
    "/ns/a/sa/x",
    "/ns/a/sa/y",
    "/ns/b/sa/x",
    "/ns/aab/sa/x",
    "/ns/a/sa/x/y",
    "/a/ns/b/sa/x",
    "/ns/b/ns/a/sa/x",
    "/ns/ns/a/sa/x",
    "/ns/a",
    "/sa/x",
    "/x",
];
const ADDRESSES: [&str; 7] =
    ["10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.1", "2001:db8::1", "2001:dead::1", "::ffff:10.1.2.3"];
const NAMES: [&str; 4] = ["a.test", "b.test", "test", "A.test"];

/// Every peer of the small world.
pub(crate) fn peers() -> Vec<SpiffeId> {
    let all = DOMAINS.iter().flat_map(|domain| PATHS.iter().map(move |path| format!("spiffe://{domain}{path}")));
    all.map(|text| SpiffeId::parse(&text).unwrap()).collect()
}

/// Facts that own what they refer to.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) peer: Option<SpiffeId>,
    pub(crate) source: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) sni: Option<String>,
}

impl Connection {
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            peer: self.peer.as_ref(),
            source: self.source,
            remote: self.remote,
            destination: self.destination,
            port: self.port,
            sni: self.sni.as_deref(),
        }
    }
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(ADDRESSES.to_vec()).prop_map(|text| text.parse().unwrap())
}

pub(crate) fn connection() -> impl Strategy<Value = Connection> {
    let sni = prop::option::of(select(NAMES.to_vec()).prop_map(str::to_owned));
    let port = select([&PORTS[..], &[1]].concat());
    (prop::option::weighted(0.8, select(peers())), address(), address(), address(), port, sni).prop_map(
        |(peer, source, remote, destination, port, sni)| Connection { peer, source, remote, destination, port, sni },
    )
}

/// At least one value in one of the lists.
fn values<T: Clone + std::fmt::Debug + Ord + 'static>(of: Vec<T>) -> impl Strategy<Value = Values<T>> {
    let list = |sizes| prop::collection::vec(select(of.clone()), sizes);
    prop_oneof![
        3 => list(1..4).prop_map(|values| Values::new(values, Vec::new())),
        1 => list(1..3).prop_map(|values| Values::new(Vec::new(), values)),
        1 => (list(1..4), list(1..3)).prop_map(|(values, not_values)| Values::new(values, not_values)),
    ]
}

pub(crate) fn strings(texts: &[&str]) -> Vec<StringMatch> {
    texts.iter().map(|text| StringMatch::new(text)).collect()
}

fn namespaces() -> Vec<NamespaceMatch> {
    NAMESPACE_PATTERNS.iter().map(|text| NamespaceMatch::new(text)).collect()
}

fn service_accounts() -> Vec<ServiceAccount> {
    let owned = |(namespace, name): &(&str, &str)| ServiceAccount {
        namespace: (*namespace).to_owned(),
        name: (*name).to_owned(),
    };
    SERVICE_ACCOUNTS.iter().map(owned).collect()
}

fn ranges() -> Vec<Cidr> {
    RANGES.iter().map(|text| Cidr::parse_lenient(text).unwrap()).collect()
}

/// A condition about who the peer is.
pub(crate) fn identity_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        3 => values(strings(&PRINCIPALS)).prop_map(Condition::Principal),
        1 => values(strings(&TRUST_DOMAINS)).prop_map(Condition::TrustDomain),
        2 => values(namespaces()).prop_map(Condition::Namespace),
        1 => values(service_accounts()).prop_map(Condition::ServiceAccount),
    ]
}

fn other_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        1 => values(ranges()).prop_map(Condition::SourceIp),
        1 => values(ranges()).prop_map(Condition::RemoteIp),
        1 => values(ranges()).prop_map(Condition::DestinationIp),
        2 => values(PORTS.to_vec()).prop_map(Condition::Port),
        1 => values(strings(&SNIS)).prop_map(Condition::Sni),
        1 => Just(Condition::Http("paths".to_owned())),
    ]
}

pub(crate) fn condition() -> impl Strategy<Value = Condition> {
    prop_oneof![3 => identity_condition(), 2 => other_condition()]
}

pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    let list = || prop::collection::vec(condition(), 1..3);
    let lists = || prop::collection::vec(list(), 0..3);
    (lists(), lists(), prop::collection::vec(condition(), 0..2), 1_u32..50).prop_map(|(from, to, when, line)| Rule {
        from,
        to,
        when,
        line,
    })
}

pub(crate) fn labels(max: usize) -> impl Strategy<Value = Labels> {
    let value = select(vec!["cart", "back"]).prop_map(String::from);
    prop::collection::btree_map(select(vec!["app", "tier"]).prop_map(String::from), value, 0..=max)
}

pub(crate) fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let action = prop_oneof![
        2 => Just(AuthorizationAction::Deny),
        3 => Just(AuthorizationAction::Allow),
        1 => Just(AuthorizationAction::Audit),
    ];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.1));
    // Mostly without a selector, so that they meet.
    let selector = prop_oneof![2 => Just(Labels::new()), 1 => labels(1)];
    let rules = prop::collection::vec(rule(), 0..3);
    (select(NAMESPACES.to_vec()), "[a-d]{1,2}", action, flags, selector, rules).prop_map(
        |(namespace, name, action, (dry_run, for_targets), selector, rules)| AuthorizationPolicy {
            file: format!("{namespace}-{name}.yaml"),
            namespace: namespace.to_owned(),
            name,
            created: None,
            selector,
            action,
            dry_run,
            documentation: Documentation::default(),
            for_targets,
            rules,
            line: 1,
            column: 1,
        },
    )
}

/// Without two of one name, as loading guarantees.
pub(crate) fn policies(most: usize) -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    prop::collection::vec(policy(), 0..most).prop_map(|all| {
        let unique: BTreeMap<_, _> =
            all.into_iter().map(|policy| ((policy.namespace.clone(), policy.name.clone()), policy)).collect();
        unique.into_values().collect()
    })
}

/// A mesh with an alias, so that names are expanded.
pub(crate) fn mesh() -> MeshSettings {
    MeshSettings {
        root_namespace: ROOT.to_owned(),
        trust_domains: vec!["td".to_owned(), "old".to_owned()],
        ..MeshSettings::default()
    }
}

/// Policies, and the workload that they are selected for.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) policies: Vec<AuthorizationPolicy>,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) evaluation: Evaluation,
}

impl Scene {
    pub(crate) fn authorizer(&self) -> Authorizer {
        let set = PolicySet::from_parts([], self.policies.iter().cloned());
        Authorizer::new(&set, &mesh(), &self.namespace, &self.labels, self.evaluation)
    }
}

pub(crate) fn scene() -> impl Strategy<Value = Scene> {
    let evaluation = prop_oneof![3 => Just(Evaluation::Enforced), 1 => Just(Evaluation::DryRun)];
    (policies(8), select(NAMESPACES.to_vec()), labels(2), evaluation).prop_map(
        |(policies, namespace, labels, evaluation)| Scene {
            policies,
            namespace: namespace.to_owned(),
            labels,
            evaluation,
        },
    )
}

/// An answer, and what decided, in a form that can be compared.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Unrestricted,
    Allowed(String, usize),
    Denied(String, usize),
    NotAllowed(Vec<String>),
}

impl Verdict {
    pub(crate) fn is_allowed(&self) -> bool {
        matches!(self, Self::Unrestricted | Self::Allowed(..))
    }
}

impl From<Authorization<'_>> for Verdict {
    fn from(authorization: Authorization<'_>) -> Self {
        match authorization {
            Authorization::Unrestricted => Self::Unrestricted,
            Authorization::Allowed(by) => Self::Allowed(by.policy.label(), by.rule),
            Authorization::Denied(by) => Self::Denied(by.policy.label(), by.rule),
            Authorization::NotAllowed(policies) => {
                Self::NotAllowed(policies.iter().map(|policy| policy.label()).collect())
            }
        }
    }
}

/// The plain evaluation.
pub(crate) mod plain {
    use super::*;

    pub(crate) fn authorize(scene: &Scene, facts: &Facts<'_>) -> Verdict {
        if let Some((label, rule)) = first(scene, AuthorizationAction::Deny, facts) {
            return Verdict::Denied(label, rule);
        }
        let allow = selected(scene, AuthorizationAction::Allow);
        if allow.is_empty() {
            return Verdict::Unrestricted;
        }
        match first(scene, AuthorizationAction::Allow, facts) {
            Some((label, rule)) => Verdict::Allowed(label, rule),
            None => Verdict::NotAllowed(allow.into_iter().map(AuthorizationPolicy::label).collect()),
        }
    }

    /// The first rule that matches, by namespace and name of its policy.
    pub(crate) fn first(scene: &Scene, action: AuthorizationAction, facts: &Facts<'_>) -> Option<(String, usize)> {
        for policy in selected(scene, action) {
            for (number, rule) in policy.rules.iter().enumerate() {
                if rule_matches(rule, action, facts) {
                    return Some((policy.label(), number));
                }
            }
        }
        None
    }

    fn selected(scene: &Scene, action: AuthorizationAction) -> Vec<&AuthorizationPolicy> {
        let mut all: Vec<_> = scene
            .policies
            .iter()
            .filter(|policy| policy.action == action)
            .filter(|policy| policy.namespace == scene.namespace || policy.namespace == ROOT)
            .filter(|policy| !policy.for_targets)
            .filter(|policy| !policy.dry_run || scene.evaluation == Evaluation::DryRun)
            .filter(|policy| policy.selector.iter().all(|pair| scene.labels.iter().any(|other| other == pair)))
            .collect();
        all.sort_by_key(|policy| (policy.namespace.clone(), policy.name.clone()));
        all
    }

    fn rule_matches(rule: &Rule, action: AuthorizationAction, facts: &Facts<'_>) -> bool {
        let everything: Vec<&Condition> =
            rule.from.iter().flatten().chain(rule.to.iter().flatten()).chain(&rule.when).collect();
        let has_http = everything.iter().any(|condition| matches!(condition, Condition::Http(_)));
        if has_http && action == AuthorizationAction::Allow {
            return false;
        }
        let all = |conditions: &[Condition]| conditions.iter().all(|condition| holds(condition, facts));
        let any = |lists: &[Vec<Condition>]| lists.is_empty() || lists.iter().any(|list| all(list));
        any(&rule.from) && any(&rule.to) && all(&rule.when)
    }

    fn both<T>(values: &Values<T>, is: impl Fn(&T) -> bool) -> bool {
        (values.values().is_empty() || values.values().iter().any(&is)) && !values.not_values().iter().any(&is)
    }

    fn holds(condition: &Condition, facts: &Facts<'_>) -> bool {
        let id = facts.peer.map(SpiffeId::as_str);
        match condition {
            Condition::Principal(values) => both(values, |form| id.is_some_and(|id| principal(&form.to_string(), id))),
            Condition::TrustDomain(values) => {
                both(values, |form| id.is_some_and(|id| trust_domain(&form.to_string(), domain_of(id))))
            }
            Condition::Namespace(values) => both(values, |form| {
                id.is_some_and(|id| namespaces_of(id).iter().any(|name| glob(&form.to_string(), name)))
            }),
            Condition::ServiceAccount(values) => both(values, |account| {
                let path = format!("/ns/{}/sa/{}", account.namespace, account.name);
                id.is_some_and(|id| id == format!("spiffe://{}{path}", domain_of(id)))
            }),
            Condition::SourceIp(values) => both(values, |range| in_range(range, facts.source)),
            Condition::RemoteIp(values) => both(values, |range| in_range(range, facts.remote)),
            Condition::DestinationIp(values) => both(values, |range| in_range(range, facts.destination)),
            Condition::Port(values) => both(values, |port| *port == facts.port),
            Condition::Sni(values) => both(values, |form| facts.sni.is_some_and(|sni| string(&form.to_string(), sni))),
            Condition::Http(_) => true,
        }
    }

    /// As it is written: exact, `x*`, `*x`, `*`.
    fn string(pattern: &str, text: &str) -> bool {
        if pattern == "*" {
            !text.is_empty()
        } else if let Some(suffix) = pattern.strip_prefix('*') {
            text.ends_with(suffix)
        } else if let Some(prefix) = pattern.strip_suffix('*') {
            text.starts_with(prefix)
        } else {
            text == pattern
        }
    }

    /// The scheme goes in front of what does not begin with a star.
    fn principal(pattern: &str, id: &str) -> bool {
        let names = mesh().trust_domains;
        let segments: Vec<&str> = pattern.split('/').collect();
        let first = segments.first().copied().unwrap();
        let is_ours = first == "cluster.local" || names.iter().any(|name| string(first, name));
        let mut expanded = vec![pattern.to_owned()];
        if segments.len() == 5 && first != "*" && is_ours {
            // A suffix that a name of the mesh has already covers it.
            let covers = |name: &String| first.strip_prefix('*').is_some_and(|suffix| name.ends_with(suffix));
            let with = |name: &String| [&[name.as_str()], &segments[1..]].concat().join("/");
            expanded = names.iter().map(|name| if covers(name) { pattern.to_owned() } else { with(name) }).collect();
        }
        let with_scheme = |text: &String| if text.starts_with('*') { text.clone() } else { format!("spiffe://{text}") };
        expanded.iter().any(|text| string(&with_scheme(text), id))
    }

    fn trust_domain(pattern: &str, domain: &str) -> bool {
        let names = mesh().trust_domains;
        let expanded = if names.iter().any(|name| name == pattern) { names } else { vec![pattern.to_owned()] };
        expanded.iter().any(|text| string(text, domain))
    }

    fn domain_of(id: &str) -> &str {
        id.split('/').nth(2).unwrap()
    }

    /// Every segment behind `ns` that is not the last one.
    fn namespaces_of(id: &str) -> Vec<&str> {
        let path: Vec<&str> = id.split('/').skip(3).collect();
        path.windows(3).filter(|window| window[0] == "ns").map(|window| window[1]).collect()
    }

    /// Each star stands for anything, by trying every length.
    fn glob(pattern: &str, text: &str) -> bool {
        match pattern.chars().next() {
            None => text.is_empty(),
            Some('*') => (0..=text.len()).any(|from| glob(&pattern[1..], &text[from..])),
            Some(first) => text.starts_with(first) && glob(&pattern[1..], &text[1..]),
        }
    }

    /// Bit by bit.
    fn in_range(range: &Cidr, address: IpAddr) -> bool {
        let bits = |address: IpAddr| -> Vec<bool> {
            let bytes = match address.to_canonical() {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
        };
        let (network, address) = (bits(range.network()), bits(address));
        let shared = usize::from(range.prefix());
        network.len() == address.len() && network[..shared] == address[..shared]
    }
}
