//! Which DestinationRule holds for a host, and what it says about a port.
//!
//! Istio's order: rules of the client's namespace, then of the service's, then of the root namespace. In each the most specific
//! host, and for one host the oldest rule; later ones only add what it leaves open.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::directory::destination_rule::{
    ClientTls, DestinationRule, LoadBalancer, OutlierDetection, SubsetSpec, TrafficPolicy, TrafficSettings,
};
use crate::directory::host::{HostMap, HostPattern};
use crate::directory::resource::RuleRef;
use crate::set::PolicySet;

/// The rules that a client sees, by namespace and host.
pub(super) struct RuleIndex<'p> {
    namespaces: HashMap<&'p str, HostMap<Vec<&'p DestinationRule>>>,
    client_namespace: &'p str,
    root_namespace: &'p str,
}

/// The rules that hold for one host, as one.
pub(super) struct EffectiveRule<'p> {
    /// The first of them.
    pub(super) reference: RuleRef,
    policy: Located<'p, TrafficPolicy>,
    /// The subsets of all of them.
    pub(super) subsets: BTreeMap<&'p Arc<str>, Located<'p, SubsetSpec>>,
}

/// A part of a rule, with the rule.
#[derive(Clone)]
pub(super) struct Located<'p, T> {
    pub(super) value: &'p T,
    rule: RuleRef,
}

impl<'p> RuleIndex<'p> {
    pub(super) fn new(
        set: &'p PolicySet,
        root_namespace: &'p str,
        client_namespace: &'p str,
        client_labels: &BTreeMap<String, String>,
    ) -> Self {
        let holds = |rule: &DestinationRule| {
            let selected = rule.workload_selector.iter().all(|(key, value)| client_labels.get(key) == Some(value));
            let own = *rule.meta.namespace == *client_namespace;
            rule.export_to.includes(client_namespace) && selected && (own || rule.workload_selector.is_empty())
        };
        let mut rules: Vec<&DestinationRule> = set.destination_rules().iter().map(|rule| &**rule).collect();
        rules.retain(|rule| holds(rule));
        // A rule for this client goes before one for all.
        rules.sort_by(|one, other| {
            let general = |rule: &DestinationRule| rule.workload_selector.is_empty();
            general(one).cmp(&general(other)).then_with(|| one.meta.by_age(&other.meta))
        });
        let mut namespaces: HashMap<&str, HostMap<Vec<&DestinationRule>>> = HashMap::new();
        for rule in rules {
            namespaces.entry(&*rule.meta.namespace).or_default().entry(&rule.host).push(rule);
        }
        Self { namespaces, client_namespace, root_namespace }
    }

    /// What holds for a host of a service in `namespace`.
    pub(super) fn rule_for(&self, namespace: &str, host: &HostPattern) -> Option<EffectiveRule<'p>> {
        // As in Istio, rules of the root namespace come last for clients in it too.
        let own = (self.client_namespace != self.root_namespace).then_some(self.client_namespace);
        let order = own.into_iter().chain([namespace, self.root_namespace]);
        let mut found = order.filter_map(|namespace| self.namespaces.get(namespace)?.most_specific(host));
        EffectiveRule::merge(found.next()?)
    }
}

impl<'p> EffectiveRule<'p> {
    fn merge(rules: &[&'p DestinationRule]) -> Option<Self> {
        let first = *rules.first()?;
        let mut policy = Located { value: &first.traffic_policy, rule: first.meta.reference() };
        let reference = policy.rule.clone();
        let mut subsets = BTreeMap::new();
        for rule in rules.iter().filter(|rule| rule.workload_selector == first.workload_selector) {
            let reference = rule.meta.reference();
            if policy.value.is_empty() {
                policy = Located { value: &rule.traffic_policy, rule: reference.clone() };
            }
            for (name, subset) in &rule.subsets {
                subsets.entry(name).or_insert_with(|| Located { value: subset, rule: reference.clone() });
            }
        }
        Some(Self { reference, policy, subsets })
    }

    /// What a port of a subset is told, the narrowest first: port of the subset, subset, port, rule.
    fn levels(&self, port: u16, subset: Option<&str>) -> impl Iterator<Item = (&'p TrafficSettings, &RuleRef)> {
        let subset = subset.and_then(|name| self.subsets.iter().find(|(known, _)| &****known == name));
        let subset = subset.map(|(_, subset)| (&subset.value.traffic_policy, &subset.rule));
        let rule = Some((self.policy.value, &self.policy.rule));
        [subset, rule].into_iter().flatten().flat_map(move |(policy, rule)| {
            let levels = [policy.ports.get(&port), Some(&policy.settings)];
            levels.into_iter().flatten().map(move |settings| (settings, rule))
        })
    }

    /// The ports about which something of their own is said.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let subsets = self.subsets.values().map(|subset| &subset.value.traffic_policy);
        subsets.chain([self.policy.value]).flat_map(|policy| policy.ports.keys().copied())
    }

    /// `tls`, and the rule that says it.
    pub(super) fn tls(&self, port: u16, subset: Option<&str>) -> Option<(&'p Arc<ClientTls>, &RuleRef)> {
        self.levels(port, subset).find_map(|(settings, rule)| Some((settings.tls.as_ref()?, rule)))
    }

    /// `loadBalancer`.
    pub(super) fn load_balancer(&self, port: u16, subset: Option<&str>) -> Option<LoadBalancer> {
        self.levels(port, subset).find_map(|(settings, _)| settings.load_balancer)
    }

    /// `outlierDetection`.
    pub(super) fn outlier_detection(&self, port: u16, subset: Option<&str>) -> Option<OutlierDetection> {
        self.levels(port, subset).find_map(|(settings, _)| settings.outlier_detection)
    }
}
