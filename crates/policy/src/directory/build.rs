//! From entries and rules to the services of one client.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portcullis_identity::TrustDomain;

use crate::directory::client::Client;
use crate::directory::decision::{Accounts, EndpointFacts, PortDecision, PortName};
use crate::directory::host::HostPattern;
use crate::directory::locality::{FARTHEST, Locality};
use crate::directory::modes::ModeTable;
use crate::directory::ports::{EVERY_PORT, PortSpec};
use crate::directory::rules::{EffectiveRule, RuleIndex};
use crate::directory::service::{Endpoint, Service, ServicePort};
use crate::directory::service_entry::{Resolution, ServiceEntry, ServiceHost};
use crate::directory::workload_entry::{EndpointAddress, WorkloadIndex, WorkloadSpec, index_of};
use crate::set::PolicySet;
use crate::workload::MeshSettings;

/// Makes services.
pub(super) struct Builder<'p> {
    client: &'p Client<'p>,
    trust_domains: Vec<TrustDomain>,
    rules: RuleIndex<'p>,
    modes: ModeTable<'p>,
    workloads: WorkloadIndex<'p>,
}

/// What the ports of one host have in common.
struct HostContext<'e> {
    entry: &'e ServiceEntry,
    host: &'e HostPattern,
    rule: Option<EffectiveRule<'e>>,
    accounts: &'e Accounts,
}

impl<'p> Builder<'p> {
    pub(super) fn new(set: &'p PolicySet, mesh: &'p MeshSettings, client: &'p Client<'p>) -> Self {
        Self {
            client,
            // What is no name of a trust domain is in no identity.
            trust_domains: mesh.trust_domains.iter().filter_map(|name| TrustDomain::parse(name).ok()).collect(),
            rules: RuleIndex::new(set, &mesh.root_namespace, client.namespace, client.labels),
            modes: ModeTable::new(set, mesh),
            workloads: index_of(set.workload_entries()),
        }
    }

    /// The services of an entry: one for each host.
    pub(super) fn services(&mut self, entry: &ServiceEntry) -> Vec<Arc<Service>> {
        let mut workloads: Vec<&WorkloadSpec> = entry.endpoints.iter().collect();
        if let Some(selector) = &entry.workload_selector {
            let selected = self.workloads.select(&entry.meta.namespace, selector);
            workloads.extend(selected.into_iter().map(|workload| &workload.spec));
        }
        // Names elsewhere are errors when the set is loaded.
        workloads.retain(|workload| entry.resolution.is_dns() || matches!(workload.address, EndpointAddress::Ip(_)));
        let accounts = workloads.iter().filter_map(|workload| workload.service_account.as_ref());
        let accounts = Accounts::new(entry, &self.trust_domains, accounts);
        entry.hosts.iter().map(|host| Arc::new(self.service(entry, host, &workloads, &accounts))).collect()
    }

    fn service(
        &mut self,
        entry: &ServiceEntry,
        host: &ServiceHost,
        workloads: &[&WorkloadSpec],
        accounts: &Accounts,
    ) -> Service {
        // Without endpoints the host itself is resolved. Nothing says that there is a sidecar.
        let itself = WorkloadSpec::plain(EndpointAddress::Name(Arc::clone(&host.written)));
        let itself = [&itself];
        let unlisted = entry.endpoints.is_empty() && entry.workload_selector.is_none();
        let workloads = if entry.resolution.is_dns() && unlisted { &itself } else { workloads };
        let rule = self.rules.rule_for(&entry.meta.namespace, &host.pattern);
        let context = HostContext { entry, host: &host.pattern, rule, accounts };
        let ports = self.ports(&context, None, workloads);
        let mut subsets = BTreeMap::new();
        for (name, subset) in context.rule.iter().flat_map(|rule| &rule.subsets) {
            let has = |workload: &&&WorkloadSpec| {
                subset.value.labels.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
            };
            let members: Vec<&WorkloadSpec> = workloads.iter().filter(has).copied().collect();
            subsets.insert(Arc::clone(name), self.ports(&context, Some(name), &members));
        }
        Service {
            host: host.pattern.clone(),
            written: Arc::clone(&host.written),
            entry: entry.meta.clone(),
            location: entry.location,
            resolution: entry.resolution,
            addresses: entry.addresses.clone(),
            ports,
            subsets,
            rule: context.rule.map(|rule| rule.reference),
        }
    }

    /// The ports of a host or of a subset, by number.
    fn ports(
        &mut self,
        context: &HostContext<'_>,
        subset: Option<&str>,
        workloads: &[&WorkloadSpec],
    ) -> Vec<Arc<ServicePort>> {
        let mut sorted = context.entry.ports.clone();
        if sorted.is_empty() {
            sorted = self.unlisted_ports(context, workloads);
        }
        sorted.sort_by_key(|port| port.number);
        sorted.iter().map(|port| Arc::new(self.port(context, port, subset, workloads))).collect()
    }

    /// Every port, as one; and each port that is reached in another way, since a policy or a rule says something about it.
    fn unlisted_ports(&mut self, context: &HostContext<'_>, workloads: &[&WorkloadSpec]) -> Vec<PortSpec> {
        let namespace = &context.entry.meta.namespace;
        let mut numbers: BTreeSet<u16> =
            workloads.iter().flat_map(|workload| self.modes.ports(namespace, &workload.labels)).collect();
        numbers.extend(context.rule.iter().flat_map(EffectiveRule::ports));
        numbers.insert(EVERY_PORT);
        numbers.into_iter().map(PortSpec::unlisted).collect()
    }

    fn port(
        &mut self,
        context: &HostContext<'_>,
        port: &PortSpec,
        subset: Option<&str>,
        workloads: &[&WorkloadSpec],
    ) -> ServicePort {
        let HostContext { entry, host, rule, accounts } = context;
        let number = port.number;
        let tls = rule.as_ref().and_then(|rule| rule.tls(number, subset));
        let decision = PortDecision::new(entry, &PortName { host, number, subset }, tls, accounts);
        let endpoint =
            |workload: &&WorkloadSpec| Arc::new(self.endpoint(&entry.meta.namespace, workload, port, &decision));
        let mut endpoints: Vec<_> = workloads.iter().map(endpoint).collect();
        // Whatever the order of the documents. What is equal in all of this is reached alike.
        endpoints.sort_by(|one, other| {
            let (address, port) = (one.address.cmp(&other.address), one.port.cmp(&other.port));
            let account = || one.service_account.cmp(&other.service_account);
            address.then(port).then_with(account).then_with(|| one.labels.cmp(&other.labels)).then_with(|| {
                (&one.locality, one.weight, &one.network).cmp(&(&other.locality, other.weight, &other.network))
            })
        });
        let original = (entry.resolution == Resolution::None)
            .then(|| decision.transport(EndpointFacts { account: None, mode: None }));
        ServicePort {
            number,
            name: Arc::clone(&port.name),
            protocol: port.protocol,
            endpoints,
            original,
            load_balancer: rule.as_ref().and_then(|rule| rule.load_balancer(number, subset)).unwrap_or_default(),
            outlier_detection: rule.as_ref().and_then(|rule| rule.outlier_detection(number, subset)),
        }
    }

    fn endpoint(
        &mut self,
        namespace: &Arc<str>,
        workload: &WorkloadSpec,
        port: &PortSpec,
        decision: &PortDecision<'_>,
    ) -> Endpoint {
        let port = workload.port(port);
        let asks_mode = decision.asks_mode() && workload.has_sidecar;
        let mode = asks_mode.then(|| self.modes.mode(namespace, &workload.labels, port));
        let distance =
            |client: &Locality| workload.locality.as_ref().map_or(FARTHEST, |locality| client.distance(locality));
        Endpoint {
            address: workload.address.clone(),
            port,
            namespace: Arc::clone(namespace),
            labels: Arc::clone(&workload.labels),
            locality: workload.locality.clone(),
            priority: self.client.locality.map_or(0, distance),
            weight: workload.weight,
            network: workload.network.clone(),
            service_account: workload.service_account.clone(),
            has_sidecar: workload.has_sidecar,
            takes_hbone: workload.takes_hbone,
            transport: decision.transport(EndpointFacts { account: workload.service_account.as_ref(), mode }),
        }
    }
}
