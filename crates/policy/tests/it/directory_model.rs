//! Random sets for the service directory whose names come from small alphabets, so that they meet; and the plain evaluation: every
//! service, rule and policy is looked at for every question, without an index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portcullis_identity::SpiffeId;
use portcullis_policy::directory::{
    Client, ClientTls, DestinationRule, Directory, Endpoint, EndpointAddress, HostPattern, Location, Service,
    ServicePort, TrafficPolicy, Transport,
};
use portcullis_policy::{EffectivePolicy, MeshSettings, Mode, PolicySet, Source};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

pub(crate) type Labels = BTreeMap<String, String>;

pub(crate) const NAMESPACES: [&str; 3] = ["istio-system", "shop", "web"];
const HOSTS: [&str; 5] = ["cart", "a.test", "b.test", "x.a.test", "cart.shop.svc.cluster.local"];
const RULE_HOSTS: [&str; 8] =
    ["*", "*.test", "*.a.test", "a.test", "x.a.test", "*.svc.cluster.local", "cart", "cart.shop.svc.cluster.local"];
pub(crate) const ADDRESSES: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.1.0.1", "10.9.0.1", "::ffff:10.0.0.1"];
const RANGES: [&str; 4] = ["10.9.0.1", "10.0.0.0/8", "10.1.0.0/16", "10.0.0.1"];
const ENDPOINT_NAMES: [&str; 3] = ["one.test", "two.test", "a.test"];
/// What an address may resolve back to.
pub(crate) const NAMES: [&str; 5] = ["one.test", "two.test", "a.test", "cart", "b.test"];
pub(crate) const PORTS: [u16; 3] = [80, 81, 8080];
const ACCOUNTS: [&str; 2] = ["x", "y"];
const TLS_MODES: [&str; 2] = ["istio", "disabled"];
const MODES: [&str; 4] = ["STRICT", "PERMISSIVE", "DISABLE", "UNSET"];
const TIMES: [&str; 2] = ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z"];

fn labels() -> impl Strategy<Value = Value> {
    (prop::option::of(select(&["cart", "web"][..])), prop::option::of(select(&["1", "2"][..]))).prop_map(|(app, v)| {
        let pairs =
            [("app", app), ("v", v)].into_iter().filter_map(|(key, value)| Some((key.to_owned(), json!(value?))));
        Value::Object(pairs.collect())
    })
}

fn endpoint(address: impl Strategy<Value = &'static str>) -> impl Strategy<Value = Value> {
    let account = prop::option::of(select(&ACCOUNTS[..]));
    let mode = prop::option::of(select(&TLS_MODES[..]));
    (address, labels(), account, mode, prop::option::of(select(&PORTS[..]))).prop_map(
        |(address, mut labels, account, mode, port)| {
            if let Some(mode) = mode {
                labels["security.istio.io/tlsMode"] = json!(mode);
            }
            let mut endpoint = json!({"address": address, "labels": labels});
            if let Some(account) = account {
                endpoint["serviceAccount"] = json!(account);
            }
            if let Some(port) = port {
                endpoint["ports"] = json!({"p80": port});
            }
            endpoint
        },
    )
}

/// A document without its name.
fn document(kind: &'static str, spec: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    (select(&NAMESPACES[..]), prop::option::of(select(&TIMES[..])), spec).prop_map(move |(namespace, created, spec)| {
        let version = if kind == "PeerAuthentication" { "security.istio.io/v1" } else { "networking.istio.io/v1" };
        let mut metadata = json!({"namespace": namespace});
        if let Some(created) = created {
            metadata["creationTimestamp"] = json!(created);
        }
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
    })
}

fn export_to() -> impl Strategy<Value = Value> {
    select(vec![json!([]), json!(["*"]), json!(["."]), json!(["web", "istio-system"])])
}

fn service_entry() -> impl Strategy<Value = Value> {
    let resolved = select(&["NONE", "STATIC", "DNS"][..]).prop_flat_map(|resolution| {
        let addresses = if resolution == "DNS" { &["10.9.0.1", "10.0.0.1"][..] } else { &RANGES[..] };
        let endpoints = match resolution {
            "NONE" => prop::collection::vec(endpoint(select(&ADDRESSES[..])), 0..1).boxed(),
            "STATIC" => prop::collection::vec(endpoint(select(&ADDRESSES[..])), 0..4).boxed(),
            _ => prop::collection::vec(endpoint(select([&ENDPOINT_NAMES[..], &ADDRESSES[..1]].concat())), 0..4).boxed(),
        };
        (Just(resolution), subsequence(addresses.to_vec(), 0..=addresses.len()), endpoints)
    });
    let ports = (subsequence(PORTS.to_vec(), 1..=3), prop::option::of(select(&PORTS[..])));
    let names = select(vec![json!([]), json!(["spiffe://td/z"]), json!(["other.test"])]);
    let location = select(&["MESH_INTERNAL", "MESH_INTERNAL", "MESH_EXTERNAL"][..]);
    let selector = prop::option::weighted(0.2, labels());
    let spec = (subsequence(HOSTS[..4].to_vec(), 1..=2), resolved, ports, names, location, export_to(), selector);
    let spec = spec.prop_map(
        |(hosts, (resolution, addresses, endpoints), (ports, target), names, location, export, selector)| {
            let port = |number: &u16| {
                let mut port = json!({"number": number, "name": format!("p{number}"), "protocol": "HTTP"});
                if let (Some(target), true) = (target, resolution != "NONE") {
                    port["targetPort"] = json!(target);
                }
                port
            };
            let mut spec = json!({
                "hosts": hosts, "resolution": resolution, "addresses": addresses, "location": location,
                "ports": ports.iter().map(port).collect::<Vec<_>>(), "subjectAltNames": names, "exportTo": export,
            });
            let has_p80 = ports.contains(&80);
            match selector.filter(|labels| labels.as_object().is_some_and(|labels| !labels.is_empty())) {
                Some(labels) => spec["workloadSelector"] = json!({"labels": labels}),
                None => {
                    spec["endpoints"] = endpoints
                        .into_iter()
                        .map(|mut endpoint| {
                            if !has_p80 {
                                endpoint.as_object_mut().unwrap().remove("ports");
                            }
                            endpoint
                        })
                        .collect()
                }
            }
            spec
        },
    );
    document("ServiceEntry", spec)
}

fn tls() -> impl Strategy<Value = Value> {
    select(vec![
        json!({}),
        json!({"tls": {"mode": "DISABLE"}}),
        json!({"tls": {"mode": "ISTIO_MUTUAL"}}),
        json!({"tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": ["spiffe://td/rule"]}}),
        json!({"tls": {"mode": "SIMPLE"}}),
        json!({"loadBalancer": {"simple": "RANDOM"}}),
    ])
}

fn traffic_policy() -> impl Strategy<Value = Value> {
    (tls(), prop::option::of((select(&PORTS[..]), tls()))).prop_map(|(mut policy, port)| {
        if let Some((number, mut settings)) = port {
            settings["port"] = json!({"number": number});
            policy["portLevelSettings"] = json!([settings]);
        }
        policy
    })
}

fn destination_rule() -> impl Strategy<Value = Value> {
    let subsets = prop::collection::btree_map(select(&["v1", "v2"][..]), (labels(), traffic_policy()), 0..3);
    let selector = prop::option::weighted(0.2, select(vec![json!({"app": "cart"}), json!({"app": "none"})]));
    let spec = (select(&RULE_HOSTS[..]), traffic_policy(), subsets, export_to(), selector);
    let spec = spec.prop_map(|(host, policy, subsets, export, selector)| {
        let subset = |(name, (labels, policy))| json!({"name": name, "labels": labels, "trafficPolicy": policy});
        let subsets: Vec<Value> = subsets.into_iter().map(subset).collect();
        let mut spec = json!({"host": host, "trafficPolicy": policy, "subsets": subsets, "exportTo": export});
        if let Some(selector) = selector {
            spec["workloadSelector"] = json!({"matchLabels": selector});
            spec["exportTo"] = json!(["."]);
        }
        spec
    });
    document("DestinationRule", spec)
}

fn workload_entry() -> impl Strategy<Value = Value> {
    document("WorkloadEntry", endpoint(select(&ADDRESSES[..])))
}

fn peer_authentication() -> impl Strategy<Value = Value> {
    let port = prop::option::of((select(&PORTS[..]), select(&MODES[..])));
    let spec = (labels(), select(&MODES[..]), port).prop_map(|(labels, mode, port)| {
        let mut spec = json!({"mtls": {"mode": mode}});
        if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
            spec["selector"] = json!({"matchLabels": labels});
            if let Some((port, mode)) = port {
                spec["portLevelMtls"] = json!({port.to_string(): {"mode": mode}});
            }
        }
        spec
    });
    document("PeerAuthentication", spec)
}

/// Documents, each in a file of its own and with a name of its own.
pub(crate) fn world() -> impl Strategy<Value = Vec<Value>> {
    let all = (
        prop::collection::vec(service_entry(), 1..5),
        prop::collection::vec(workload_entry(), 0..3),
        prop::collection::vec(destination_rule(), 0..5),
        prop::collection::vec(peer_authentication(), 0..4),
    );
    all.prop_map(|(entries, workloads, rules, policies)| {
        let all = [entries, workloads, rules, policies].concat();
        let named = |(n, mut document): (usize, Value)| {
            document["metadata"]["name"] = json!(format!("d{n}"));
            document
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

/// The set; `None` if a random combination is refused.
pub(crate) fn load(documents: &[Value]) -> Option<PolicySet> {
    let source = |document: &Value| Source {
        file: format!("{}.yaml", document["metadata"]["name"].as_str().unwrap()),
        text: serde_json::to_vec(document).unwrap(),
    };
    let loaded = PolicySet::load(&documents.iter().map(source).collect::<Vec<_>>());
    // Selected workloads may have a name where an address is needed; nothing else is wrong with these documents.
    assert!(loaded.errors.iter().all(|error| error.reason == "endpoint-needs-ip"), "{:?}", loaded.errors);
    loaded.errors.is_empty().then_some(loaded.set)
}

pub(crate) fn mesh() -> MeshSettings {
    MeshSettings { trust_domains: vec!["td".to_owned(), "old".to_owned()], ..MeshSettings::default() }
}

/// The rules that hold for a host, the first one first.
fn rules<'s>(set: &'s PolicySet, client: &Client<'_>, service: &Service) -> Vec<&'s DestinationRule> {
    let root = mesh().root_namespace;
    let visible = |rule: &&DestinationRule| {
        let own = &*rule.meta.namespace == client.namespace;
        let selected = rule.workload_selector.iter().all(|(key, value)| client.labels.get(key) == Some(value));
        rule.export_to.includes(client.namespace)
            && (rule.workload_selector.is_empty() || own && selected)
            && rule.host.covers(&service.host)
    };
    let rank = |rule: &DestinationRule| {
        let namespace = &*rule.meta.namespace;
        if namespace == client.namespace && namespace != root {
            Some(0)
        } else if namespace == &*service.entry.namespace {
            Some(1)
        } else {
            (namespace == root).then_some(2)
        }
    };
    let length = |host: &HostPattern| match host {
        HostPattern::Name(name) => (1, name.len()),
        HostPattern::Wildcard(name) => (0, name.len()),
    };
    let all = set.destination_rules().iter().map(|rule| &**rule).filter(visible);
    let mut all: Vec<_> = all.filter_map(|rule| Some((rank(rule)?, rule))).collect();
    all.sort_by(|(one_rank, one), (other_rank, other)| {
        let order = |rank: &i32, rule: &DestinationRule| {
            (*rank, std::cmp::Reverse(length(&rule.host)), rule.workload_selector.is_empty(), rule.meta.created)
        };
        order(one_rank, one)
            .cmp(&order(other_rank, other))
            .then_with(|| (&one.meta.name, &one.meta.namespace).cmp(&(&other.meta.name, &other.meta.namespace)))
    });
    let Some((rank, first)) = all.first().copied() else { return Vec::new() };
    let same = |(other, rule): &(i32, &DestinationRule)| {
        *other == rank && rule.host == first.host && rule.workload_selector == first.workload_selector
    };
    all.into_iter().filter(same).map(|(_, rule)| rule).collect()
}

/// `tls` for a port: port of the subset, subset, port, rule.
fn tls_of<'s>(rules: &[&'s DestinationRule], port: u16, subset: Option<&str>) -> Option<&'s ClientTls> {
    let mut policies: Vec<&TrafficPolicy> = Vec::new();
    if let Some(name) = subset {
        let defined = rules.iter().find_map(|rule| rule.subsets.iter().find(|(known, _)| &***known == name));
        policies.extend(defined.map(|(_, subset)| &subset.traffic_policy));
    }
    policies.extend(rules.iter().map(|rule| &rule.traffic_policy).find(|policy| !policy.is_empty()));
    policies.into_iter().find_map(|policy| {
        let of_port = policy.ports.get(&port).and_then(|settings| settings.tls.as_deref());
        of_port.or(policy.settings.tls.as_deref())
    })
}

/// What a transport is, without the reasons and the server name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Plain {
    Plaintext,
    Mtls(BTreeSet<String>),
    Tls(String),
}

pub(crate) fn plain(transport: &Transport) -> Plain {
    match transport {
        Transport::Plaintext(_) => Plain::Plaintext,
        Transport::Mtls { identities, .. } => {
            Plain::Mtls(identities.iter().flat_map(|ids| ids.iter()).map(ToString::to_string).collect())
        }
        Transport::Originate(origination) => {
            Plain::Tls(format!("{:?} {:?} {:?}", origination.mode, origination.sni, origination.subject_alt_names))
        }
    }
}

/// How an endpoint must be reached; `None` stands for a destination that is kept.
pub(crate) fn expected(
    set: &PolicySet,
    client: &Client<'_>,
    service: &Service,
    port: u16,
    subset: Option<&str>,
    endpoint: Option<&Endpoint>,
) -> Plain {
    let entry = set.service_entries().iter().find(|entry| entry.meta == service.entry).unwrap();
    let spiffe = |names: &[String]| -> BTreeSet<String> {
        names.iter().filter(|name| SpiffeId::parse(name).is_ok()).cloned().collect()
    };
    let own = || {
        let account = endpoint.and_then(|endpoint| endpoint.service_account.as_ref());
        let of_account = account.into_iter().flat_map(|account| {
            ["td", "old"].map(|domain| format!("spiffe://{domain}/ns/{}/sa/{account}", service.entry.namespace))
        });
        of_account.chain(spiffe(&entry.subject_alt_names)).collect()
    };
    match tls_of(&rules(set, client, service), port, subset) {
        Some(ClientTls::Disable) => Plain::Plaintext,
        Some(ClientTls::IstioMutual { subject_alt_names, .. }) if !subject_alt_names.is_empty() => {
            Plain::Mtls(spiffe(subject_alt_names))
        }
        Some(ClientTls::IstioMutual { .. }) => Plain::Mtls(own()),
        Some(ClientTls::Simple(_)) => {
            let sni = service.host.name().map(ToString::to_string);
            Plain::Tls(format!("Simple {sni:?} {:?}", entry.subject_alt_names))
        }
        Some(ClientTls::Mutual { .. }) => unreachable!("no document has it"),
        None if service.location == Location::MeshExternal => Plain::Plaintext,
        None => match endpoint.filter(|endpoint| endpoint.has_sidecar) {
            None => Plain::Plaintext,
            Some(endpoint) => {
                let policy = EffectivePolicy::resolve(set, &mesh(), &endpoint.namespace, &endpoint.labels);
                if policy.mode(endpoint.port).mode == Mode::Disable { Plain::Plaintext } else { Plain::Mtls(own()) }
            }
        },
    }
}

/// What a look-up may find: a service port, and ways to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) host: String,
    pub(crate) entry: String,
    pub(crate) number: u16,
    /// The port and transport of each endpoint; a kept destination has port 0.
    pub(crate) ways: BTreeSet<(u16, Plain)>,
}

fn whole(port: &ServicePort) -> BTreeSet<(u16, Plain)> {
    match &port.original {
        Some(transport) => BTreeSet::from([(0, plain(transport))]),
        None => ways(port.endpoints.iter().map(|endpoint| &**endpoint)),
    }
}

fn ways<'e>(endpoints: impl Iterator<Item = &'e Endpoint>) -> BTreeSet<(u16, Plain)> {
    endpoints.map(|endpoint| (endpoint.port, plain(&endpoint.transport))).collect()
}

/// The candidates for a captured connection that are meant most directly.
pub(crate) fn candidates(directory: &Directory, address: IpAddr, port: u16, names: &[&str]) -> Vec<Candidate> {
    let address = address.to_canonical();
    let mut levels: BTreeMap<(u8, u8), Vec<Candidate>> = BTreeMap::new();
    for service in directory.services() {
        for service_port in &service.ports {
            let number = service_port.number;
            let mut add = |level, ways| {
                let candidate = Candidate { host: service.label(), entry: service.entry.label(), number, ways };
                levels.entry(level).or_default().push(candidate);
            };
            if number == port {
                for cidr in service.addresses.iter().filter(|cidr| cidr.contains(address)) {
                    let single = cidr.prefix() == 32;
                    add(if single { (0, 0) } else { (4, 128 - cidr.prefix()) }, whole(service_port));
                }
                let own_names = || service_port.endpoints.iter().map(|endpoint| endpoint.address.to_string());
                let host = names.contains(&&*service.written) && !own_names().any(|name| *name == *service.written);
                let resolution = format!("{:?}", service.resolution);
                let resolved = resolution == "Dns" || resolution == "None" && service.addresses.is_empty();
                if host && resolved && !service.written.ends_with(".svc.cluster.local") {
                    add((2, 0), whole(service_port));
                }
            }
            let mut groups: Vec<&EndpointAddress> =
                service_port.endpoints.iter().map(|endpoint| &endpoint.address).collect();
            groups.dedup();
            for group in groups {
                let meant = match group {
                    EndpointAddress::Ip(own) => *own == address,
                    EndpointAddress::Name(name) => names.contains(&&**name),
                };
                let of_group =
                    || service_port.endpoints.iter().map(|endpoint| &**endpoint).filter(|at| at.address == *group);
                if meant && number == port {
                    add((1, 0), ways(of_group()));
                } else if meant && of_group().any(|endpoint| endpoint.port == port) {
                    add((3, 0), ways(of_group().filter(|endpoint| endpoint.port == port)));
                }
            }
        }
    }
    let mut levels = levels.into_iter();
    let Some(((level, _), mut found)) = levels.next() else { return Vec::new() };
    // Plaintext where another service is secured, however less directly it is meant, is a conflict.
    let best = found[0].clone();
    if level < 4 && best.ways.iter().any(|(_, way)| *way == Plain::Plaintext) {
        let is_other = |other: &Candidate| (&other.host, &other.entry) != (&best.host, &best.entry);
        let is_secured = |other: &Candidate| other.ways.iter().any(|(_, way)| *way != Plain::Plaintext);
        let less_direct = levels.filter(|((level, _), _)| *level < 4).flat_map(|(_, candidates)| candidates);
        found.extend(less_direct.filter(|other| is_other(other) && is_secured(other) && other.ways != best.ways));
    }
    found
}
