//! The rules of a policy, and how one is compared with a connection.

use std::cmp::Ordering;
use std::net::IpAddr;

use portcullis_identity::{IstioId, SCHEME, SpiffeId};

use crate::authorization::facts::Facts;
use crate::authorization::pattern::{NamespaceMatch, ServiceAccount, StringMatch};
use crate::cidr::Cidr;

/// One rule: it matches if one of `from`, one of `to` and all of `when` match. An empty list does not restrict.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Rule {
    /// Sources; in each all conditions must match.
    pub from: Vec<Vec<Condition>>,
    /// Operations; in each all conditions must match.
    pub to: Vec<Vec<Condition>>,
    /// Further conditions.
    pub when: Vec<Condition>,
    /// The line on which it begins, from 1.
    pub line: u32,
}

/// One field of a source or operation with its negation, or one `when`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Condition {
    /// `principals`, `source.principal`
    Principal(Values<StringMatch>),
    /// `trustDomains`, `source.trustDomain`
    TrustDomain(Values<StringMatch>),
    /// `namespaces`, `source.namespace`
    Namespace(Values<NamespaceMatch>),
    /// `serviceAccounts`, `source.serviceAccount`
    ServiceAccount(Values<ServiceAccount>),
    /// `ipBlocks`, `source.ip`
    SourceIp(Values<Cidr>),
    /// `remoteIpBlocks`, `remote.ip`
    RemoteIp(Values<Cidr>),
    /// `destination.ip`
    DestinationIp(Values<Cidr>),
    /// `ports`, `destination.port`
    Port(Values<u16>),
    /// `connection.sni`
    Sni(Values<StringMatch>),
    /// A field of HTTP, which a connection does not have: its name. Rules with one are changed before they are evaluated.
    Http(String),
}

/// Values, one of which must match, and values none of which may match. In order and without repetition, so that a long list
/// is searched fast.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Values<T> {
    values: Vec<T>,
    not_values: Vec<T>,
}

impl<T: Ord> Values<T> {
    /// Both lists, in any order.
    #[must_use]
    pub fn new(mut values: Vec<T>, mut not_values: Vec<T>) -> Self {
        for list in [&mut values, &mut not_values] {
            list.sort_unstable();
            list.dedup();
        }
        Self { values, not_values }
    }
}

impl<T> Values<T> {
    /// One of these must match, unless there are none.
    #[must_use]
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// None of these may match.
    #[must_use]
    pub fn not_values(&self) -> &[T] {
        &self.not_values
    }

    /// Whether there is no value at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.values.is_empty() && self.not_values.is_empty()
    }

    /// `any` says whether one of a list matches. Without the fact that is compared none does: positive values fail, negative
    /// ones hold.
    fn hold(&self, any: impl Fn(&[T]) -> bool) -> bool {
        (self.values.is_empty() || any(&self.values)) && (self.not_values.is_empty() || !any(&self.not_values))
    }
}

impl Rule {
    /// Whether the rule matches the connection. Fields of HTTP never do.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let any = |lists: &[Vec<Condition>]| lists.is_empty() || lists.iter().any(|list| all(list, facts));
        any(&self.from) && any(&self.to) && all(&self.when, facts)
    }

    /// Every condition, wherever it stands.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.from.iter().chain(&self.to).flatten().chain(&self.when)
    }
}

fn all(conditions: &[Condition], facts: &Facts<'_>) -> bool {
    conditions.iter().all(|condition| condition.holds(facts))
}

impl Condition {
    /// Whether the connection meets the condition.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Self::Principal(values) => values.hold(|list| facts.peer.is_some_and(|id| any_principal(list, id))),
            Self::TrustDomain(values) => {
                values.hold(|list| facts.peer.is_some_and(|id| any_string(list, id.domain_str(), id.domain_str())))
            }
            Self::Namespace(values) => values.hold(|list| facts.namespaces().any(|name| any_namespace(list, name))),
            Self::ServiceAccount(values) => {
                let id = facts.peer.and_then(|id| id.istio());
                let is = |account: &ServiceAccount, id: IstioId<'_>| {
                    (id.namespace, id.service_account) == (&account.namespace, &account.name)
                };
                values.hold(|list| id.is_some_and(|id| list.iter().any(|account| is(account, id))))
            }
            Self::SourceIp(values) => values.hold(|list| any_block(list, facts.source)),
            Self::RemoteIp(values) => values.hold(|list| any_block(list, facts.remote)),
            Self::DestinationIp(values) => values.hold(|list| any_block(list, facts.destination)),
            Self::Port(values) => values.hold(|list| list.binary_search(&facts.port).is_ok()),
            Self::Sni(values) => values.hold(|list| facts.sni.is_some_and(|sni| any_string(list, sni, sni))),
            Self::Http(_) => false,
        }
    }
}

/// Istio puts the scheme in front of exact and prefix forms, and compares with the whole ID.
fn any_principal(list: &[StringMatch], id: &SpiffeId) -> bool {
    let whole = id.as_str();
    any_string(list, whole.strip_prefix(SCHEME).unwrap_or(whole), whole)
}

/// `start` is what exact and prefix forms are compared with; `end` is the same text, possibly with more in front of it.
fn any_string(list: &[StringMatch], start: &str, end: &str) -> bool {
    let exact = list.partition_point(|form| matches!(form, StringMatch::Exact(_)));
    let (exact, others) = list.split_at_checked(exact).unwrap_or((&[], list));
    let compare = |form: &StringMatch| match form {
        StringMatch::Exact(text) => text.as_str().cmp(start),
        _ => Ordering::Greater,
    };
    exact.binary_search_by(compare).is_ok()
        || others.iter().any(|form| match form {
            StringMatch::Exact(_) | StringMatch::Prefix(_) => form.matches(start),
            StringMatch::Suffix(_) | StringMatch::Present => form.matches(end),
        })
}

fn any_namespace(list: &[NamespaceMatch], namespace: &str) -> bool {
    let exact = list.partition_point(|form| matches!(form, NamespaceMatch::Exact(_)));
    let (exact, patterns) = list.split_at_checked(exact).unwrap_or((&[], list));
    let compare = |form: &NamespaceMatch| match form {
        NamespaceMatch::Exact(text) => text.as_str().cmp(namespace),
        NamespaceMatch::Pattern(_) => Ordering::Greater,
    };
    exact.binary_search_by(compare).is_ok() || patterns.iter().any(|pattern| pattern.matches(namespace))
}

fn any_block(list: &[Cidr], address: IpAddr) -> bool {
    list.iter().any(|block| block.contains(address))
}
