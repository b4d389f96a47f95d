//! The three services that make up a sidecar.

use serde_yaml::{Mapping, Value};

use crate::ca::JOIN_SERVICE;
use crate::names::{self, SIDECAR_OF, SidecarNames};
use crate::proxy_config::{ADMIN_DIR, ADMIN_SOCKET, HOLDER_SOCKET, IDENTITY_DIR, LEDGER_DIR, POLICIES_DIR};
use crate::request::Request;
use crate::service::{MeshedService, NETWORK_KEYS};
use crate::spec::{self, NamedService, keys, set};
use crate::yaml::{list, map};

/// The variable that holds the proxy's configuration.
pub(crate) const CONFIG_VARIABLE: &str = "PORTCULLIS_CONFIG";
/// The variable that says whose configuration it is, `NAMESPACE/NAME`: so all sidecars can have the same text.
pub(crate) const WORKLOAD_VARIABLE: &str = "PORTCULLIS_WORKLOAD";
/// The capabilities with which a holder starts, and none of which it keeps: for the rules, and for giving up the others and itself. Root,
/// since a capability without a file that grants it is root's.
const HOLDER_CAPABILITIES: [&str; 4] = ["NET_ADMIN", "SETPCAP", "SETUID", "SETGID"];

/// A service of the file together with its definition and the configuration of its new sidecar.
pub(crate) struct SidecarSpec<'a> {
    pub(crate) service: &'a MeshedService,
    /// The definition that the author wrote.
    pub(crate) original: &'a Mapping,
    /// The proxy's configuration file.
    pub(crate) config: &'a str,
}

impl SidecarSpec<'_> {
    /// The services in the order in which they start.
    pub(crate) fn services(&self, request: &Request) -> Vec<NamedService> {
        let SidecarNames { holder, proxy, ready, .. } = SidecarNames::of(&self.service.name);
        let services = [(holder, self.holder()), (proxy.clone(), self.proxy(request)), (ready, self.ready())];
        let finish = |(name, mut service): (String, Mapping)| {
            // A later run recognises the sidecar by this label, and gives it no sidecar of its own.
            let mut labels = keys([(SIDECAR_OF, Value::from(self.service.name.as_str()))]);
            if name == proxy {
                set(&mut labels, names::ADMIN_SOCKET, Value::from(ADMIN_SOCKET));
            }
            set(&mut service, "labels", Value::Mapping(labels));
            // Otherwise the sidecar would start although the profile of its app is not active.
            if let Some(profiles) = self.original.get("profiles") {
                set(&mut service, "profiles", profiles.clone());
            }
            NamedService { name, definition: spec::hardened(request, service) }
        };
        services.into_iter().map(finish).collect()
    }

    /// Holds the network namespace and everything that belongs to it, so that it survives a replacement of the app. It makes the redirect
    /// rules before anything else: whoever starts it again, no namespace is without them.
    ///
    /// Its ports are those of the image's configuration. The proxy's own changes with each service that is added, and Compose would
    /// replace the holder then, and take the network from the app.
    fn holder(&self) -> Mapping {
        let names = SidecarNames::of(&self.service.name);
        let mut holder = keys([
            ("command", self.service.settings.hold_command(HOLDER_SOCKET)),
            ("user", Value::from("0:0")),
            ("cap_add", list(HOLDER_CAPABILITIES)),
            ("restart", self.restart()),
            ("volumes", list([format!("{}:{ADMIN_DIR}", names.admin_volume)])),
            ("healthcheck", spec::no_healthcheck()),
            ("networks", Value::Mapping(self.service.networks.clone())),
        ]);
        for key in NETWORK_KEYS {
            if let Some(value) = self.original.get(*key).filter(|_| !["networks", "links"].contains(key)) {
                set(&mut holder, key, value.clone());
            }
        }
        if let Some(links) = &self.service.links {
            set(&mut holder, "links", links.clone());
        }
        if let Some(sysctls) = &self.service.sysctls.network {
            set(&mut holder, "sysctls", sysctls.clone());
        }
        holder
    }

    /// The author's, so that the sidecar of a job ends with it.
    fn restart(&self) -> Value {
        self.original.get("restart").cloned().unwrap_or_else(|| Value::from("unless-stopped"))
    }

    fn proxy(&self, request: &Request) -> Mapping {
        let names = SidecarNames::of(&self.service.name);
        // The long form: a missing folder is an error. The short form would create an empty folder, without policies.
        let policies = map([
            ("type", Value::from("bind")),
            ("source", Value::from(spec::escaped(&request.policies))),
            ("target", Value::from(POLICIES_DIR)),
            ("read_only", Value::from(true)),
        ]);
        // Where no CA keeps the token fresh, the sidecar does.
        let access = if request.joined.is_some() { "" } else { ":ro" };
        let identity = Value::from(format!("{}:{IDENTITY_DIR}{access}", names.identity_volume));
        let admin = Value::from(format!("{}:{ADMIN_DIR}", names.admin_volume));
        let ledger = Value::from(format!("{}:{LEDGER_DIR}", names.ledger_volume));
        let mut depends_on = keys([(names.holder.as_str(), spec::condition("service_started"))]);
        if request.joined.is_some() {
            set(&mut depends_on, JOIN_SERVICE, spec::condition("service_completed_successfully"));
        }
        keys([
            ("command", list(["proxy", "--holder", HOLDER_SOCKET])),
            ("network_mode", self.service.network_mode()),
            ("user", Value::from(spec::USER)),
            ("restart", self.restart()),
            ("environment", environment(self.config, &self.service.workload())),
            ("volumes", Value::Sequence(vec![identity, admin, ledger, policies])),
            // Not the CA: a sidecar retries until the CA answers, and replacing a sidecar must not recreate the CA.
            ("depends_on", Value::Mapping(depends_on)),
            ("healthcheck", spec::healthcheck(&["healthcheck"])),
            ("stop_grace_period", Value::from("30s")),
        ])
    }

    /// Exits once the proxy is ready. The engine runs the first health check only after an interval, so an app that waited for
    /// a healthy proxy would need a short interval, and a process for each check as long as the proxy runs.
    ///
    /// It has no restart policy: `up` starts it again, and one would double the time until `up` says that a sidecar does not become ready.
    fn ready(&self) -> Mapping {
        let names = SidecarNames::of(&self.service.name);
        keys([
            ("command", list(["wait", "--holder", HOLDER_SOCKET])),
            ("network_mode", self.service.network_mode()),
            ("user", Value::from(spec::USER)),
            ("volumes", list([format!("{}:{ADMIN_DIR}:ro", names.admin_volume)])),
            ("healthcheck", spec::no_healthcheck()),
            ("depends_on", map([(&names.proxy, spec::condition("service_started"))])),
        ])
    }
}

/// The environment with a configuration in it.
pub(crate) fn environment(config: &str, workload: &str) -> Value {
    map([(CONFIG_VARIABLE, Value::from(spec::escaped(config))), (WORKLOAD_VARIABLE, Value::from(workload))])
}

/// A volume for a token, or for a socket. It is in memory, since neither is of use after a restart, and it belongs to the sidecar's
/// user whichever container mounts it first.
pub(crate) fn memory_volume() -> Value {
    let options = [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0700,uid=1337,gid=1337")];
    let options = map(options.map(|(key, value)| (key, Value::from(value))));
    map([("driver", Value::from("local")), ("driver_opts", options)])
}
