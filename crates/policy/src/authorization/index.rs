//! Finds the rules that can match a connection, without looking at the others.
//!
//! A rule is filed under the values of one of its conditions, of which one must match: those that the fewest rules share. A
//! connection looks up its own identity, addresses, port and server name, so the cost of a decision depends on the rules that
//! share these with it, and not on the number of rules. What only excludes something is filed under nothing and always read.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hash};
use std::net::IpAddr;

use portcullis_identity::SCHEME;

use crate::authorization::facts::Facts;
use crate::authorization::hasher::QuickHasher;
use crate::authorization::pattern::{NamespaceMatch, StringMatch};
use crate::authorization::rule::{Condition, Rule};
use crate::cidr::Cidr;

/// The position of a rule in its list.
pub(super) type RuleNumber = u32;

/// What a rule can be filed under.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Key {
    Principal(String),
    PrincipalPrefix(String),
    PrincipalSuffix(String),
    AnyPrincipal,
    TrustDomain(String),
    Namespace(String),
    /// The path of an ID, `/ns/NAMESPACE/sa/NAME`.
    ServiceAccount(String),
    SourceIp(Cidr),
    RemoteIp(Cidr),
    DestinationIp(Cidr),
    Port(u16),
    Sni(String),
}

/// Rules by what they are filed under. Every list is in ascending order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Index {
    principals: Lists<String>,
    prefixes: ByLength,
    suffixes: ByLength,
    any_principal: Vec<RuleNumber>,
    trust_domains: Lists<String>,
    namespaces: Lists<String>,
    service_accounts: Lists<String>,
    source_ips: ByRange,
    remote_ips: ByRange,
    destination_ips: ByRange,
    ports: Lists<u16>,
    snis: Lists<String>,
    unfiled: Vec<RuleNumber>,
}

type Lists<K> = HashMap<K, Vec<RuleNumber>, BuildHasherDefault<QuickHasher>>;

impl Index {
    pub(super) fn new<'r>(rules: impl Iterator<Item = &'r Rule> + Clone) -> Self {
        let mut shared: HashMap<Key, usize> = HashMap::new();
        for key in rules.clone().flat_map(Rule::conditions).filter_map(keys).flatten() {
            let count = shared.entry(key).or_default();
            *count = count.saturating_add(1);
        }
        let mut index = Self::default();
        for (rule, number) in rules.zip(0..) {
            match best(rule, &shared) {
                Some(keys) => keys.into_iter().for_each(|key| index.file(key, number)),
                None => index.unfiled.push(number),
            }
        }
        index
    }

    fn file(&mut self, key: Key, number: RuleNumber) {
        let list = match key {
            Key::Principal(text) => self.principals.entry(text).or_default(),
            Key::PrincipalPrefix(text) => self.prefixes.entry(text),
            Key::PrincipalSuffix(text) => self.suffixes.entry(text),
            Key::AnyPrincipal => &mut self.any_principal,
            Key::TrustDomain(text) => self.trust_domains.entry(text).or_default(),
            Key::Namespace(text) => self.namespaces.entry(text).or_default(),
            Key::ServiceAccount(path) => self.service_accounts.entry(path).or_default(),
            Key::SourceIp(block) => self.source_ips.entry(block),
            Key::RemoteIp(block) => self.remote_ips.entry(block),
            Key::DestinationIp(block) => self.destination_ips.entry(block),
            Key::Port(port) => self.ports.entry(port).or_default(),
            Key::Sni(text) => self.snis.entry(text).or_default(),
        };
        // Two sources of a rule may share a key.
        if list.last() != Some(&number) {
            list.push(number);
        }
    }

    /// Calls `visit` with each list of rules that may match.
    pub(super) fn visit(&self, facts: &Facts<'_>, mut visit: impl FnMut(&[RuleNumber])) {
        visit(&self.unfiled);
        look_up(&self.ports, &facts.port, &mut visit);
        self.source_ips.look_up(facts.source, &mut visit);
        self.remote_ips.look_up(facts.remote, &mut visit);
        self.destination_ips.look_up(facts.destination, &mut visit);
        if let Some(sni) = facts.sni {
            look_up(&self.snis, sni, &mut visit);
        }
        let Some(id) = facts.peer else { return };
        let whole = id.as_str();
        let principal = whole.strip_prefix(SCHEME).unwrap_or(whole);
        visit(&self.any_principal);
        look_up(&self.principals, principal, &mut visit);
        look_up(&self.service_accounts, id.path(), &mut visit);
        look_up(&self.trust_domains, id.domain_str(), &mut visit);
        if !self.namespaces.is_empty() {
            facts.namespaces().for_each(|namespace| look_up(&self.namespaces, namespace, &mut visit));
        }
        self.prefixes.look_up(|length| principal.get(..length), &mut visit);
        self.suffixes.look_up(|length| whole.get(whole.len().checked_sub(length)?..), &mut visit);
    }
}

fn look_up<K, Q>(lists: &Lists<K>, key: &Q, visit: &mut impl FnMut(&[RuleNumber]))
where
    K: std::borrow::Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    // Most are empty, and hashing is most of the cost.
    if !lists.is_empty()
        && let Some(list) = lists.get(key)
    {
        visit(list);
    }
}

/// Prefixes or suffixes: one look-up for each length that there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct ByLength(BTreeMap<usize, Lists<String>>);

impl ByLength {
    fn entry(&mut self, text: String) -> &mut Vec<RuleNumber> {
        self.0.entry(text.len()).or_default().entry(text).or_default()
    }

    fn look_up<'t>(&self, part: impl Fn(usize) -> Option<&'t str>, visit: &mut impl FnMut(&[RuleNumber])) {
        for (length, lists) in &self.0 {
            let Some(part) = part(*length) else { return };
            look_up(lists, part, visit);
        }
    }
}

/// Address ranges: one look-up for each size that there is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct ByRange {
    /// A range of each size and family.
    sizes: Vec<Cidr>,
    lists: Lists<Cidr>,
}

impl ByRange {
    fn entry(&mut self, range: Cidr) -> &mut Vec<RuleNumber> {
        let is_same_size =
            |known: &Cidr| (known.prefix(), known.network().is_ipv4()) == (range.prefix(), range.network().is_ipv4());
        if !self.sizes.iter().any(is_same_size) {
            self.sizes.push(range);
        }
        self.lists.entry(range).or_default()
    }

    fn look_up(&self, address: IpAddr, visit: &mut impl FnMut(&[RuleNumber])) {
        if self.sizes.is_empty() {
            return;
        }
        let address = address.to_canonical();
        for size in self.sizes.iter().filter(|size| size.network().is_ipv4() == address.is_ipv4()) {
            look_up(&self.lists, &size.range_of(address), visit);
        }
    }
}

/// The keys of the condition, or of the alternatives, that the fewest rules share.
fn best(rule: &Rule, shared: &HashMap<Key, usize>) -> Option<Vec<Key>> {
    let cost = |keys: &Vec<Key>| -> usize { keys.iter().map(|key| shared.get(key).copied().unwrap_or(1)).sum() };
    let cheapest = |list: &[Condition]| list.iter().filter_map(keys).min_by_key(cost);
    // Every alternative must have keys: one without could match on its own.
    let alternatives = |lists: &[Vec<Condition>]| -> Option<Vec<Key>> {
        if lists.is_empty() {
            return None;
        }
        lists.iter().map(|list| cheapest(list)).collect::<Option<Vec<_>>>().map(|keys| keys.concat())
    };
    [alternatives(&rule.from), alternatives(&rule.to), cheapest(&rule.when)].into_iter().flatten().min_by_key(cost)
}

/// What a condition can be filed under. `None`: it has no positive values, or forms that cannot be looked up.
fn keys(condition: &Condition) -> Option<Vec<Key>> {
    fn all<T>(values: &[T], key: impl Fn(&T) -> Option<Key>) -> Option<Vec<Key>> {
        if values.is_empty() { None } else { values.iter().map(key).collect() }
    }
    let exact = |form: &StringMatch, key: fn(String) -> Key| match form {
        StringMatch::Exact(text) => Some(key(text.clone())),
        _ => None,
    };
    match condition {
        Condition::Principal(values) => all(values.values(), |form| {
            Some(match form {
                StringMatch::Exact(text) => Key::Principal(text.clone()),
                StringMatch::Prefix(text) => Key::PrincipalPrefix(text.clone()),
                StringMatch::Suffix(text) => Key::PrincipalSuffix(text.clone()),
                StringMatch::Present => Key::AnyPrincipal,
            })
        }),
        Condition::TrustDomain(values) => all(values.values(), |form| exact(form, Key::TrustDomain)),
        Condition::Namespace(values) => all(values.values(), |form| match form {
            NamespaceMatch::Exact(text) => Some(Key::Namespace(text.clone())),
            NamespaceMatch::Pattern(_) => None,
        }),
        Condition::ServiceAccount(values) => all(values.values(), |account| {
            Some(Key::ServiceAccount(format!("/ns/{}/sa/{}", account.namespace, account.name)))
        }),
        Condition::SourceIp(values) => all(values.values(), |block| Some(Key::SourceIp(*block))),
        Condition::RemoteIp(values) => all(values.values(), |block| Some(Key::RemoteIp(*block))),
        Condition::DestinationIp(values) => all(values.values(), |block| Some(Key::DestinationIp(*block))),
        Condition::Port(values) => all(values.values(), |port| Some(Key::Port(*port))),
        Condition::Sni(values) => all(values.values(), |form| exact(form, Key::Sni)),
        Condition::Http(_) => None,
    }
}
