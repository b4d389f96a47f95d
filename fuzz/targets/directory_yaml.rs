//! ServiceEntries, WorkloadEntries and DestinationRules by any author: the directory does not depend on the order of files, and
//! every look-up of what it holds finds it.
//!
//! - Everything that is said about a file points into it.
//! - A set without errors, loaded with its files in another order, gives the same directory.
//! - An address or name that a service has leads to a service, or to a conflict that names the service's entry.
//! - What is found is an endpoint of the port that is named, and mTLS is never without a server name.
#![no_main]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portcullis_policy::directory::{Choice, Client, Directory, EndpointAddress, Lookup, Service, Transport};
use portcullis_policy::{MeshSettings, PolicySet, Source};

// 0xff is in no UTF-8 text; it parts the input into files.
fuzz_target!(|input: &[u8]| {
    let file = |(n, text): (usize, &[u8])| Source { file: format!("{n}.yaml"), text: text.to_vec() };
    let mut sources: Vec<Source> = input.split(|byte| *byte == 0xff).take(4).enumerate().map(file).collect();
    let loaded = PolicySet::load(&sources);
    for found in loaded.errors.iter().chain(&loaded.warnings) {
        let source = sources.iter().find(|source| source.file == found.file).expect("a finding about no file");
        let lines = 2 + source.text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        assert!(found.line > 0 && (found.line as usize) <= lines, "{found}");
    }
    if !loaded.errors.is_empty() || loaded.set.service_entries().is_empty() {
        return;
    }
    sources.reverse();
    let reversed = PolicySet::load(&sources).set;
    let mesh = MeshSettings::default();
    for namespace in ["shop", "web", "istio-system"] {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let client = Client { namespace, labels: &labels, locality: None };
        let directory = Directory::resolve(&loaded.set, &mesh, &client);
        assert_eq!(directory, Directory::resolve(&reversed, &mesh, &client), "the order of files decides");
        for service in directory.services().iter().take(16) {
            check(&directory, service);
        }
    }
});

fn check(directory: &Directory, service: &Arc<Service>) {
    for port in service.ports.iter().take(8) {
        let owned = |lookup: Lookup<'_>| match lookup {
            Lookup::Found(found) => found_is_consistent(&found.port.endpoints, found.choice),
            Lookup::Conflict(labels) => assert!(!labels.is_empty()),
            other => panic!("{}:{}: {}", service.label(), port.number, other.label()),
        };
        for range in service.addresses.iter().take(4) {
            owned(directory.find(SocketAddr::new(range.network(), port.number), &[]));
        }
        for endpoint in port.endpoints.iter().take(8) {
            match &endpoint.address {
                EndpointAddress::Ip(address) => {
                    owned(directory.find(SocketAddr::new(*address, port.number), &[]));
                    owned(directory.find(SocketAddr::new(*address, endpoint.port), &[]));
                }
                EndpointAddress::Name(name) => {
                    assert!(directory.names().contains(name));
                    let unknown = SocketAddr::new([203, 0, 113, 9].into(), endpoint.port);
                    owned(directory.find(unknown, std::slice::from_ref(name)));
                }
            }
            if let Transport::Mtls { sni, .. } = &endpoint.transport {
                assert!(!sni.is_empty());
            }
        }
        if let Some(name) = service.host.name() {
            owned(directory.by_host(name, port.number, None));
        }
    }
}

fn found_is_consistent(endpoints: &[Arc<portcullis_policy::directory::Endpoint>], choice: Choice<'_>) {
    let known = choice.endpoints().iter().all(|one| endpoints.iter().any(|other| Arc::ptr_eq(one, other)));
    assert!(known, "an endpoint of another port");
}
