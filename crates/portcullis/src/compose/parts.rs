//! The three services that stand beside a meshed one.

use serde_yaml::{Mapping, Value};

use super::Request;
use super::network::{self, Meshed};
use super::proxy_file::{IDENTITY, POLICIES};
use super::yaml::{list, map};

/// The variable that holds a configuration.
pub(super) const CONFIG: &str = "PORTCULLIS_CONFIG";
pub(super) const USER: &str = "1337:1337";

/// Names that one service takes.
pub(super) fn names(service: &str) -> [String; 3] {
    ["net", "intercept", "proxy"].map(|part| format!("{service}-{part}"))
}

/// The parts of one service in the order in which they start.
pub(super) fn all(service: &Meshed, original: &Mapping, config: &str, request: &Request) -> Vec<(String, Value)> {
    let [net, intercept, proxy] = names(&service.name);
    let parts = [
        (net, holder(service, original)),
        (intercept, interceptor(service, config)),
        (proxy, sidecar(service, original, config, request)),
    ];
    let finish = |(name, mut part): (String, Mapping)| {
        // By it a later run finds the sidecar, and does not give it one.
        set(&mut part, "labels", map([(super::LABEL, Value::from(service.name.as_str()))]));
        // Otherwise the parts of a service that is not wanted would start.
        if let Some(profiles) = original.get("profiles") {
            set(&mut part, "profiles", profiles.clone());
        }
        (name, hardened(request, part))
    };
    parts.into_iter().map(finish).collect()
}

/// A service of our image that may do nothing but what `part` says.
pub(super) fn hardened(request: &Request, part: Mapping) -> Value {
    let mut whole = Mapping::new();
    set(&mut whole, "image", Value::from(request.image.as_str()));
    whole.extend(part);
    set(&mut whole, "cap_drop", list(["ALL"]));
    set(&mut whole, "read_only", Value::from(true));
    set(&mut whole, "security_opt", list(["no-new-privileges:true"]));
    Value::Mapping(whole)
}

/// What a volume for a token is: in memory, since a token is worth nothing after a restart, and the sidecar's user's from the
/// first moment on, whoever mounts it first.
pub(super) fn identity_volume() -> Value {
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0700,uid=1337,gid=1337")];
    let options = map(options.map(|(key, value)| (key, Value::from(value))));
    map([("driver", Value::from("local")), ("driver_opts", options)])
}

fn set(part: &mut Mapping, key: &str, value: Value) {
    part.insert(Value::from(key), value);
}

pub(super) fn part<const N: usize>(entries: [(&str, Value); N]) -> Mapping {
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

fn sidecar(service: &Meshed, original: &Mapping, config: &str, request: &Request) -> Mapping {
    let [_, intercept, _] = names(&service.name);
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
        ("volumes", Value::Sequence(vec![Value::from(format!("{}:{IDENTITY}:ro", service.identity())), policies])),
        // Not the authority: a sidecar asks until it is there, and one that is replaced must not take the authority with it.
        ("depends_on", map([(&intercept, condition("service_completed_successfully"))])),
        ("healthcheck", healthcheck(&["healthcheck"])),
        ("stop_grace_period", Value::from("30s")),
    ])
}

/// Asks with a command of the image.
pub(super) fn healthcheck(command: &[&str]) -> Value {
    map([
        ("test", list(["CMD", "/portcullis"].iter().chain(command).copied())),
        ("interval", Value::from("1s")),
        ("timeout", Value::from("3s")),
        ("retries", Value::from(30)),
    ])
}

/// The image asks the proxy, which is not there.
pub(super) fn no_healthcheck() -> Value {
    map([("disable", Value::from(true))])
}

pub(super) fn environment(config: &str) -> Value {
    map([(CONFIG, Value::from(escaped(config)))])
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
