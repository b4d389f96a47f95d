//! The proxy's configuration file for a service of a compose file.

use serde_yaml::Value;

use crate::request::Request;
use crate::service::MeshedService;
use crate::spec::{keys, set};
use crate::yaml::{in_line, list, map, write};

/// Where the policies are mounted.
pub(crate) const POLICIES_DIR: &str = "/etc/portcullis/policies";
/// Where a sidecar finds its token, and the roots by which it recognises the CA.
pub(crate) const IDENTITY_DIR: &str = "/var/lib/portcullis/identity";
/// Where the socket of the admin server is, in a volume of its own: nothing in the sidecar's network can connect to it.
pub(crate) const ADMIN_DIR: &str = "/run/portcullis";
/// Where commands look for it by themselves.
pub(crate) const ADMIN_SOCKET: &str = "/run/portcullis/admin.sock";
/// Where the holder of the network namespace announces it to the sidecar, in the same volume.
pub(crate) const HOLDER_SOCKET: &str = "/run/portcullis/holder.sock";
/// Where it writes what it remembers of connections.
pub(crate) const LEDGER_DIR: &str = "/var/lib/portcullis/ledger";

/// The configuration of the sidecar of `service`, whose directory has each of `peers`, and which gets its certificate from the CA at
/// `ca_address`.
pub(crate) fn text<'a>(
    service: &MeshedService,
    peers: impl Iterator<Item = &'a MeshedService>,
    ca_address: &str,
    request: &Request,
) -> String {
    let services = peers.map(service_entry).collect();
    let mut inbound = keys([("transparent", Value::from("[::]:15006")), ("httpHint", Value::from(true))]);
    service.settings.extend_inbound(&mut inbound);
    let file = |name: &str| Value::from(format!("{IDENTITY_DIR}/{name}"));
    let mut ca = keys([
        ("address", Value::from(ca_address)),
        ("trustBundle", file("root-cert.pem")),
        ("tokenFile", file("token")),
    ]);
    if request.joined.is_some() {
        set(&mut ca, "renewToken", Value::from(true));
    }
    let sections = map([
        ("mesh", map([("trustDomain", Value::from(request.trust_domain.to_string()))])),
        ("policies", Value::from(POLICIES_DIR)),
        ("identity", map([("ca", Value::Mapping(ca))])),
        ("inbound", Value::Mapping(inbound)),
        ("outbound", map([("transparent", Value::from("[::]:15001"))])),
        ("services", Value::Sequence(services)),
        ("ledger", map([("folder", Value::from(LEDGER_DIR))])),
        ("admin", map([("listen", Value::from("127.0.0.1:15000")), ("socket", Value::from(ADMIN_SOCKET))])),
        ("health", map([("listen", Value::from("[::]:15021"))])),
        ("metrics", map([("listen", Value::from("[::]:15090"))])),
    ]);
    let Value::Mapping(sections) = sections else { return String::new() };
    write(&Value::Mapping(sections.into_iter().map(|(key, value)| (key, in_line(value))).collect()))
}

/// The entry of a service in the directory: every port, and the identity that must answer.
pub(crate) fn service_entry(peer: &MeshedService) -> Value {
    let (name, namespace) = (|| Value::from(peer.name.as_str()), peer.namespace.as_str());
    let endpoint = |host: &String| {
        map([("address", Value::from(host.as_str())), ("labels", map([("app", name())])), ("serviceAccount", name())])
    };
    map([
        ("apiVersion", Value::from("networking.istio.io/v1")),
        ("kind", Value::from("ServiceEntry")),
        ("metadata", in_line(map([("name", name()), ("namespace", Value::from(namespace))]))),
        (
            "spec",
            map([
                ("hosts", in_line(list([format!("{}.{namespace}.svc.cluster.local", peer.name)]))),
                ("location", Value::from("MESH_INTERNAL")),
                ("resolution", Value::from("DNS")),
                ("endpoints", in_line(Value::Sequence(peer.hosts.iter().map(endpoint).collect()))),
            ]),
        ),
    ])
}
