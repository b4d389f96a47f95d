//! The proxy's own file for a service of a compose file.

use serde_yaml::Value;

use super::Request;
use super::network::Meshed;
use super::yaml::{list, map, write};

pub(super) const POLICIES: &str = "/etc/portcullis/policies";
/// Where a sidecar has its token, and the roots that the authority is recognised by.
pub(super) const IDENTITY: &str = "/var/lib/portcullis/identity";

/// The text for `service`, which reaches each of `peers` over mTLS and has its certificate from `authority`.
pub(super) fn text<'a>(
    service: &Meshed,
    peers: impl Iterator<Item = &'a Meshed>,
    authority: &str,
    request: &Request,
) -> String {
    let routes = peers.map(route).collect();
    let file = |name: &str| Value::from(format!("{IDENTITY}/{name}"));
    write(&map([
        (
            "workload",
            map([
                ("name", Value::from(service.name.as_str())),
                ("namespace", Value::from(request.namespace.as_str())),
                ("serviceAccount", Value::from(service.name.as_str())),
                ("labels", map([("app", Value::from(service.name.as_str()))])),
            ]),
        ),
        ("mesh", map([("trustDomain", Value::from(request.trust_domain.to_string()))])),
        ("policies", Value::from(POLICIES)),
        (
            "identity",
            map([(
                "ca",
                map([
                    ("address", Value::from(authority)),
                    ("trustBundle", file("root-cert.pem")),
                    ("tokenFile", file("token")),
                ]),
            )]),
        ),
        ("inbound", map([("transparent", Value::from("[::]:15006")), ("httpHint", Value::from(true))])),
        ("outbound", map([("transparent", Value::from("[::]:15001")), ("routes", Value::Sequence(routes))])),
        ("admin", map([("listen", Value::from("127.0.0.1:15000"))])),
        ("health", map([("listen", Value::from("[::]:15021"))])),
        ("metrics", map([("listen", Value::from("[::]:15090"))])),
    ]))
}

/// How `peer` is reached.
pub(super) fn route(peer: &Meshed) -> Value {
    map([
        ("hosts", list(peer.hosts.iter().cloned())),
        ("mode", Value::from("mtls")),
        ("identities", list([peer.id.clone()])),
        ("service", Value::from(peer.name.as_str())),
    ])
}
