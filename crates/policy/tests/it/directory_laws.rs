//! What holds for the directory of any set and client.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use portcullis_policy::directory::{Choice, Client, Directory, Lookup, ServicePort, Transport};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use crate::directory_model::{
    ADDRESSES, Labels, NAMES, NAMESPACES, PORTS, Plain, candidates, expected, load, mesh, plain, world,
};

fn client_labels() -> impl Strategy<Value = Labels> {
    select(&["cart", "web"][..]).prop_map(|app| Labels::from([("app".to_owned(), app.to_owned())]))
}

fn resolve(documents: &[Value], namespace: &str, labels: &Labels) -> Option<Directory> {
    let set = load(documents)?;
    Some(Directory::resolve(&set, &mesh(), &Client { namespace, labels, locality: None }))
}

/// Every port of every service and subset.
fn ports(
    directory: &Directory,
) -> impl Iterator<Item = (&portcullis_policy::directory::Service, Option<&str>, &ServicePort)> {
    directory.services().iter().flat_map(|service| {
        let subsets =
            service.subsets.iter().flat_map(|(name, ports)| ports.iter().map(move |port| (Some(&**name), &**port)));
        let ports = service.ports.iter().map(|port| (None, &**port)).chain(subsets);
        ports.map(move |(subset, port)| (&**service, subset, port))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_documents_does_not_matter(
        (documents, shuffled) in world().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        namespace in select(&NAMESPACES[..]),
        labels in client_labels(),
    ) {
        let (one, other) = (resolve(&documents, namespace, &labels), resolve(&shuffled, namespace, &labels));
        prop_assert_eq!(&one, &other);
        if let (Some(one), Some(other)) = (one, other) {
            prop_assert_eq!(one.overview(), other.overview());
        }
    }

    #[test]
    fn every_transport_is_that_of_the_plain_evaluation(
        documents in world(),
        namespace in select(&NAMESPACES[..]),
        labels in client_labels(),
    ) {
        let Some(set) = load(&documents) else { return Ok(()) };
        let client = Client { namespace, labels: &labels, locality: None };
        let directory = Directory::resolve(&set, &mesh(), &client);
        for (service, subset, port) in ports(&directory) {
            let of = |endpoint| expected(&set, &client, service, port.number, subset, endpoint);
            for endpoint in &port.endpoints {
                prop_assert_eq!(plain(&endpoint.transport), of(Some(&**endpoint)), "{} {:?}", service.label(), endpoint);
            }
            if let Some(transport) = &port.original {
                prop_assert_eq!(plain(transport), of(None), "{}", service.label());
            }
        }
        let seen = |entry: &&Arc<portcullis_policy::directory::ServiceEntry>| entry.export_to.includes(namespace);
        let hosts: usize = set.service_entries().iter().filter(seen).map(|entry| entry.hosts.len()).sum();
        prop_assert_eq!(directory.services().len(), hosts);
    }

    #[test]
    fn mtls_needs_a_sidecar_or_a_rule(documents in world(), namespace in select(&NAMESPACES[..]), labels in client_labels()) {
        let Some(directory) = resolve(&documents, namespace, &labels) else { return Ok(()) };
        for (_, _, port) in ports(&directory) {
            for endpoint in port.endpoints.iter().filter(|endpoint| !endpoint.has_sidecar) {
                let transport = &endpoint.transport;
                let is_mtls = matches!(transport, Transport::Mtls { .. });
                prop_assert!(!is_mtls || transport.reason() == "rule_istio_mutual");
            }
            for transport in port.endpoints.iter().map(|endpoint| &endpoint.transport).chain(&port.original) {
                // Nobody is ever accepted as anybody.
                if let Transport::Mtls { identities: Ok(ids), .. } = transport {
                    prop_assert!(ids.iter().count() > 0);
                }
            }
        }
    }

    /// A policy for one port of one workload changes nothing else.
    #[test]
    fn disable_for_a_port_is_plaintext_for_that_port(
        documents in world(),
        namespace in select(&NAMESPACES[..]),
        labels in client_labels(),
        chosen in any::<prop::sample::Index>(),
        port in select(&PORTS[..]),
    ) {
        // Without rules, and with policies for whole namespaces only: of two for one workload only one would count.
        let keep = |document: &&Value| {
            document["kind"] != "DestinationRule" && document["spec"].get("selector").is_none()
        };
        let mut documents: Vec<Value> = documents.iter().filter(keep).cloned().collect();
        let entries: Vec<usize> = (0..documents.len())
            .filter(|n| documents[*n]["spec"]["endpoints"].as_array().is_some_and(|list| !list.is_empty()))
            .collect();
        prop_assume!(!entries.is_empty());
        let entry = *chosen.get(&entries);
        documents[entry]["spec"]["endpoints"][0]["labels"]["only"] = json!("this");
        let of_entry = documents[entry]["metadata"]["namespace"].clone();
        prop_assume!(of_entry != "istio-system");
        let Some(before) = resolve(&documents, namespace, &labels) else { return Ok(()) };
        documents.push(json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": "only", "namespace": of_entry},
            "spec": {
                "selector": {"matchLabels": {"only": "this"}},
                "portLevelMtls": {port.to_string(): {"mode": "DISABLE"}},
            },
        }));
        let after = resolve(&documents, namespace, &labels).unwrap();
        for ((_, _, one), (_, _, other)) in ports(&before).zip(ports(&after)) {
            for (one, other) in one.endpoints.iter().zip(&other.endpoints) {
                if one.labels.contains_key("only") && one.port == port {
                    prop_assert_eq!(plain(&other.transport), Plain::Plaintext);
                } else {
                    prop_assert_eq!(plain(&one.transport), plain(&other.transport));
                }
            }
        }
    }

    #[test]
    fn the_index_answers_as_the_plain_evaluation(
        documents in world(),
        namespace in select(&NAMESPACES[..]),
        labels in client_labels(),
        address in select([&ADDRESSES[..], &["10.200.0.1", "192.0.2.1"]].concat()),
        port in select([&PORTS[..], &[9999]].concat()),
        names in subsequence(NAMES.to_vec(), 0..=2),
    ) {
        let Some(directory) = resolve(&documents, namespace, &labels) else { return Ok(()) };
        let destination = SocketAddr::new(address.parse().unwrap(), port);
        let shared: Vec<Arc<str>> = names.iter().map(|name| Arc::from(*name)).collect();
        let candidates = candidates(&directory, destination.ip(), port, &names);
        let distinct: BTreeSet<_> = candidates.iter().map(|candidate| &candidate.ways).collect();
        match (directory.find(destination, &shared), distinct.len()) {
            (Lookup::Unknown, 0) => {}
            (Lookup::Conflict(labels), 2..) => {
                let entries: BTreeSet<_> = candidates.iter().map(|candidate| candidate.entry.clone()).collect();
                prop_assert!(labels.iter().all(|label| entries.contains(label)), "{:?} {:?}", labels, entries);
            }
            (Lookup::Found(found), 1) => {
                let first = &candidates[0];
                prop_assert_eq!((found.service.label(), found.port.number), (first.host.clone(), first.number));
                let ways: BTreeSet<(u16, Plain)> = match found.choice {
                    Choice::Original(transport) => BTreeSet::from([(0, plain(transport))]),
                    choice => choice.endpoints().iter().map(|at| (at.port, plain(&at.transport))).collect(),
                };
                prop_assert_eq!(&ways, &first.ways);
            }
            (answer, count) => prop_assert!(false, "{answer:?} for {count}: {candidates:?}"),
        }
    }
}
