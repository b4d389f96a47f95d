//! The four services that stand beside a meshed one.

use serde_yaml::{Mapping, Value};

use super::Request;
use super::network::{self, Meshed};
use super::proxy_file::{CERTS, POLICIES};
use super::yaml::{list, map};

/// What is shared by all services: one CA for the whole file.
pub(super) const CA_VOLUME: &str = "portcullis-ca";
const CA: &str = "/var/lib/portcullis/ca";
const USER: &str = "1337:1337";

/// Names that one service takes.
pub(super) fn names(service: &str) -> [String; 4] {
    ["net", "intercept", "certs", "proxy"].map(|part| format!("{service}-{part}"))
}

/// The parts of one service in the order in which they start.
pub(super) fn all(service: &Meshed, original: &Mapping, config: &str, request: &Request) -> Vec<(String, Value)> {
    let [net, intercept, certs, proxy] = names(&service.name);
    let parts = [
        (net, holder(service, original)),
        (intercept, interceptor(service, config)),
        (certs, issuer(service, request)),
        (proxy, sidecar(service, original, config, request)),
    ];
    let add_common = |(name, part): (String, Mapping)| {
        let mut whole = Mapping::new();
        set(&mut whole, "image", Value::from(request.image.as_str()));
        whole.extend(part);
        set(&mut whole, "cap_drop", list(["ALL"]));
        set(&mut whole, "read_only", Value::from(true));
        set(&mut whole, "security_opt", list(["no-new-privileges:true"]));
        // Without it, a second run could not tell its own output.
        set(&mut whole, "labels", map([(super::LABEL, Value::from(service.name.as_str()))]));
        // Otherwise the parts of a service that is not wanted would start.
        if let Some(profiles) = original.get("profiles") {
            set(&mut whole, "profiles", profiles.clone());
        }
        (name, Value::Mapping(whole))
    };
    parts.into_iter().map(add_common).collect()
}

fn set(part: &mut Mapping, key: &str, value: Value) {
    part.insert(Value::from(key), value);
}

fn part<const N: usize>(entries: [(&str, Value); N]) -> Mapping {
    entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect()
}

/// Holds the network namespace, and everything that belongs to it, so that the app may be replaced without losing it.
fn holder(service: &Meshed, original: &Mapping) -> Mapping {
    let mut holder = part([
        ("command", list(["hold", "--await-intercept"])),
        // Came it back by itself after a reboot, the app would run in it without the rules, which nobody makes again.
        ("restart", Value::from("no")),
        ("healthcheck", no_healthcheck()),
        ("networks", Value::Mapping(service.networks.clone())),
    ]);
    for key in network::MOVED {
        if let Some(value) = original.get(*key).filter(|_| !["networks", "links"].contains(key)) {
            set(&mut holder, key, value.clone());
        }
    }
    if let Some(links) = &service.links {
        set(&mut holder, "links", links.clone());
    }
    if let Some(sysctls) = &service.net_sysctls {
        set(&mut holder, "sysctls", sysctls.clone());
    }
    holder
}

/// Installs the redirect rules and ends. The capability is effective for root only, since the binary has no file capabilities.
fn interceptor(service: &Meshed, config: &str) -> Mapping {
    part([
        ("command", list(["intercept", "install"])),
        ("network_mode", service.network_mode()),
        ("user", Value::from("0:0")),
        ("cap_add", list(["NET_ADMIN"])),
        ("environment", environment(config)),
        ("healthcheck", no_healthcheck()),
        ("depends_on", map([(&service.holder(), condition("service_started"))])),
    ])
}

/// Makes the CA and the certificate if they are not there. It alone sees the CA's key, and it has no network.
fn issuer(service: &Meshed, request: &Request) -> Mapping {
    let id = request.spiffe_id(&service.name);
    part([
        ("command", list(["certs", "ensure", "--ca", CA, "--id", &id, "--out", CERTS, "--ttl", "720h"])),
        ("network_mode", Value::from("none")),
        ("healthcheck", no_healthcheck()),
        ("user", Value::from(USER)),
        ("volumes", list([format!("{CA_VOLUME}:{CA}"), format!("{}:{CERTS}", service.certs())])),
    ])
}

fn sidecar(service: &Meshed, original: &Mapping, config: &str, request: &Request) -> Mapping {
    let [_, intercept, certs, _] = names(&service.name);
    let completed = || condition("service_completed_successfully");
    // The long form: a folder that is missing is an error, where the short form would make an empty one, without policies.
    let policies = map([
        ("type", Value::from("bind")),
        ("source", Value::from(escaped(&request.policies))),
        ("target", Value::from(POLICIES)),
        ("read_only", Value::from(true)),
    ]);
    part([
        ("command", list(["proxy"])),
        ("network_mode", service.network_mode()),
        ("user", Value::from(USER)),
        ("restart", restart(original)),
        ("environment", environment(config)),
        ("volumes", Value::Sequence(vec![Value::from(format!("{}:{CERTS}:ro", service.certs())), policies])),
        ("depends_on", map([(&intercept, completed()), (&certs, completed())])),
        (
            "healthcheck",
            map([
                ("test", list(["CMD", "/portcullis", "healthcheck"])),
                ("interval", Value::from("1s")),
                ("timeout", Value::from("3s")),
                ("retries", Value::from(30)),
            ]),
        ),
        ("stop_grace_period", Value::from("30s")),
    ])
}

/// The image asks the proxy, which is not there.
fn no_healthcheck() -> Value {
    map([("disable", Value::from(true))])
}

fn environment(config: &str) -> Value {
    map([("PORTCULLIS_CONFIG", Value::from(escaped(config)))])
}

/// Compose replaces `$NAME` in every text; `$$` is a dollar.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// A condition of `depends_on`.
pub(super) fn condition(text: &str) -> Value {
    map([("condition", Value::from(text))])
}

fn restart(original: &Mapping) -> Value {
    original.get("restart").cloned().unwrap_or_else(|| Value::from("unless-stopped"))
}
