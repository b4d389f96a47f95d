//! Settings that all generated services share.

use serde_yaml::{Mapping, Value};

use crate::request::Request;
use crate::yaml::{list, map};

/// The user of generated services, in the form of compose's `user`.
pub(crate) const USER: &str = "1337:1337";

/// A generated service and its name.
#[derive(Clone, Debug)]
pub(crate) struct NamedService {
    pub(crate) name: String,
    pub(crate) definition: Value,
}

/// The keys of a service.
pub(crate) fn keys<const N: usize>(entries: [(&str, Value); N]) -> Mapping {
    entries.into_iter().map(|(key, value)| (Value::from(key), value)).collect()
}

/// Sets one key of a service.
pub(crate) fn set(service: &mut Mapping, key: &str, value: Value) {
    service.insert(Value::from(key), value);
}

/// A service of the sidecar's image with `keys`, without capabilities and with a read-only root.
pub(crate) fn hardened(request: &Request, keys: Mapping) -> Value {
    let mut service = Mapping::new();
    set(&mut service, "image", Value::from(request.image.as_str()));
    service.extend(keys);
    set(&mut service, "cap_drop", list(["ALL"]));
    set(&mut service, "read_only", Value::from(true));
    set(&mut service, "security_opt", list(["no-new-privileges:true"]));
    Value::Mapping(service)
}

/// A health check that runs a command of the binary. Nothing waits for it, and each check is a process: it is rare.
pub(crate) fn healthcheck(command: &[&str]) -> Value {
    map([
        ("test", list(["CMD", "/portcullis"].iter().chain(command).copied())),
        ("interval", Value::from("30s")),
        ("timeout", Value::from("3s")),
        ("retries", Value::from(2)),
    ])
}

/// The image's health check asks the proxy, so services that do not run it disable the check.
pub(crate) fn no_healthcheck() -> Value {
    map([("disable", Value::from(true))])
}

/// The condition of an entry in `depends_on`.
pub(crate) fn condition(text: &str) -> Value {
    map([("condition", Value::from(text))])
}

/// Compose replaces `$NAME` in every text; `$$` is a dollar.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}
