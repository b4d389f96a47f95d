//! The socket of a container engine: which containers are sidecars, and what containers are called. Only GETs: the list of
//! containers, and each container of a compose project where that is asked for.
//!
//! The engine is never needed. It saves its user a list of addresses, and it knows the names of containers that have no sidecar.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;

use crate::{AdminAddress, DEFAULT_PORT, SidecarTarget, Url};

/// The usual socket of the engine.
pub const DEFAULT_ENGINE: &str = "/var/run/docker.sock";
/// On every container of a sidecar that `compose add` wrote; its value is the service that the sidecar belongs to.
pub const SIDECAR_LABEL: &str = "portcullis.sidecar-of";
/// The same on containers that were written by hand, which `compose add` does not take for its own.
pub(crate) const WORKLOAD_LABEL: &str = "portcullis.workload";
/// The port of `admin.listen`, where it is not 15000; a container that has it is a sidecar even without the other label.
pub const ADMIN_PORT_LABEL: &str = "portcullis.admin-port";
/// Where the Unix socket of the admin server is in the container of the proxy, in a volume. Whoever may read the volume on the host is
/// asked through it: nothing has to listen on the network.
pub(crate) const ADMIN_SOCKET_LABEL: &str = "portcullis.admin-socket";
/// On what belongs to the mesh and is no workload, such as the CA.
pub(crate) const COMPONENT_LABEL: &str = "portcullis.component";
const COMPOSE_PROJECT: &str = "com.docker.compose.project";
const COMPOSE_SERVICE: &str = "com.docker.compose.service";
/// Running containers. `{"status":["running"]}`, as a query has it.
const RUNNING: &str = "/containers/json?filters=%7B%22status%22%3A%5B%22running%22%5D%7D";

/// Why an engine gives no list.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection, or no answer.
    #[error("the container engine does not answer: {0}")]
    Io(#[from] io::Error),
    /// The socket belongs to others.
    #[error("permission denied: the socket of the container engine is for root and its group")]
    Denied,
    /// Another server, or an error of the engine.
    #[error("the container engine gives no list of containers: {0}")]
    Answer(String),
}

/// Names of containers by their addresses.
#[derive(Clone, Debug, Default)]
pub struct ContainerNames(HashMap<IpAddr, Named>);

/// Who has an address.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    /// When the container was made, in Unix time: the address had another owner before. 0 if the engine does not say.
    since: i64,
}

/// The running containers.
#[derive(Clone, Debug)]
pub(crate) struct Containers(Vec<Container>);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Container {
    id: String,
    created: i64,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
    network_settings: NetworkSettings,
    host_config: HostConfig,
    mounts: Option<Vec<Mount>>,
}

/// A folder of the host in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Mount {
    source: PathBuf,
    destination: PathBuf,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct HostConfig {
    /// `container:ID` for one that uses the network of another.
    network_mode: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    #[serde(rename = "IPAddress")]
    v4: String,
    #[serde(rename = "GlobalIPv6Address")]
    v6: String,
}

/// Asks the engine for its running containers.
///
/// # Errors
/// If there is no list within the deadline.
pub(crate) async fn list(socket: &Path, within: Duration) -> Result<Containers, EngineError> {
    let text = fetch(socket, RUNNING, within).await?;
    Containers::parse(&text).map_err(|error| EngineError::Answer(error.to_string()))
}

/// What the engine answers to one GET.
pub(crate) async fn fetch(socket: &Path, path: &str, within: Duration) -> Result<String, EngineError> {
    let url = Url::of(AdminAddress::Unix(socket.to_owned()), path);
    let answer = url.fetch(Method::GET, within).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => EngineError::Denied,
        _ => EngineError::Io(error),
    })?;
    if answer.status == 200 { Ok(answer.body) } else { Err(EngineError::Answer(format!("status {}", answer.status))) }
}

impl Containers {
    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }

    /// The sidecars: those with a socket in a volume, and those that have an address of their own. Of the containers that share a
    /// network, that is the one which holds it.
    ///
    /// With a compose project, only those of it.
    pub(crate) fn sidecars(&self, project: Option<&str>) -> Vec<SidecarTarget> {
        let with_socket = self.of(project).filter_map(|container| Some((container.belongs_to(), container.socket()?)));
        let sockets: BTreeMap<(Option<&String>, Option<&String>), SidecarTarget> = with_socket.collect();
        let without = self.of(project).filter(|container| {
            container.label(ADMIN_PORT_LABEL).is_some() || !sockets.contains_key(&container.belongs_to())
        });
        let mut targets: Vec<SidecarTarget> =
            without.filter_map(Container::sidecar).chain(sockets.values().cloned()).collect();
        targets.sort_by(|one, other| one.name.cmp(&other.name));
        targets
    }

    /// Those without a sidecar on a network of a sidecar: neither a sidecar, nor in the network namespace of one.
    pub(crate) fn without_sidecar(&self, project: Option<&str>) -> Vec<String> {
        let sidecars: Vec<&Container> = self.of(project).filter(|container| container.is_sidecar()).collect();
        let networks: BTreeSet<&String> = sidecars.iter().flat_map(|sidecar| sidecar.networks()).collect();
        // The engine writes the whole ID; an ID that is empty would be the beginning of any.
        let is_beside = |container: &Container| {
            let of = container.host_config.network_mode.strip_prefix("container:").unwrap_or_default();
            !of.is_empty() && sidecars.iter().any(|sidecar| sidecar.id == of)
        };
        let outside = self.0.iter().filter(|container| {
            !container.is_sidecar()
                && container.label(COMPONENT_LABEL).is_none()
                && !is_beside(container)
                && container.networks().any(|network| networks.contains(network))
        });
        let names: BTreeSet<String> = outside.filter_map(Container::name).collect();
        names.into_iter().collect()
    }

    /// The containers of a compose project, or all.
    fn of(&self, project: Option<&str>) -> impl Iterator<Item = &Container> {
        self.0.iter().filter(move |container| {
            project.is_none_or(|project| container.label(COMPOSE_PROJECT).is_some_and(|label| label == project))
        })
    }

    /// What to say where there is none.
    pub(crate) fn no_sidecar(&self, socket: &Path) -> String {
        format!(
            "{}: none of {} running containers is a sidecar with an address: `portcullis compose add` writes the label \
             {SIDECAR_LABEL}, {ADMIN_SOCKET_LABEL} names a socket, and {ADMIN_PORT_LABEL} an admin port",
            socket.display(),
            self.0.len()
        )
    }
}

impl Container {
    fn label(&self, name: &str) -> Option<&String> {
        self.labels.as_ref().and_then(|labels| labels.get(name)).filter(|value| !value.is_empty())
    }

    fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let networks = self.network_settings.networks.iter().flat_map(BTreeMap::values);
        networks.flat_map(|network| [&network.v4, &network.v6]).filter_map(|address| address.parse().ok())
    }

    /// The service of the sidecar, that of compose, else the name of the container.
    fn name(&self) -> Option<String> {
        let own = || self.names.iter().flatten().next().map(|name| name.trim_start_matches('/').to_owned());
        let label = self.workload().or_else(|| self.label(COMPOSE_SERVICE));
        label.cloned().or_else(own)
    }

    /// What the sidecar belongs to.
    fn workload(&self) -> Option<&String> {
        self.label(SIDECAR_LABEL).or_else(|| self.label(WORKLOAD_LABEL))
    }

    fn is_sidecar(&self) -> bool {
        [ADMIN_PORT_LABEL, ADMIN_SOCKET_LABEL, SIDECAR_LABEL, WORKLOAD_LABEL]
            .iter()
            .any(|label| self.label(label).is_some())
    }

    /// The project, and the service in it that the sidecar belongs to.
    fn belongs_to(&self) -> (Option<&String>, Option<&String>) {
        (self.label(COMPOSE_PROJECT), self.workload())
    }

    /// Its socket, where it is on the host.
    fn socket(&self) -> Option<SidecarTarget> {
        let inside = Path::new(self.label(ADMIN_SOCKET_LABEL)?);
        let on_host = |mount: &Mount| {
            let rest = inside.strip_prefix(&mount.destination).ok()?;
            // The engine says nothing of where some kinds of volumes are.
            (!mount.source.as_os_str().is_empty()).then(|| mount.source.join(rest))
        };
        let path = self.mounts.iter().flatten().find_map(on_host)?;
        Some(SidecarTarget { address: AdminAddress::Unix(path), name: self.name() })
    }

    /// The names of its networks.
    fn networks(&self) -> impl Iterator<Item = &String> {
        self.network_settings.networks.iter().flat_map(BTreeMap::keys)
    }

    fn sidecar(&self) -> Option<SidecarTarget> {
        if !self.is_sidecar() {
            return None;
        }
        let port = self.label(ADMIN_PORT_LABEL);
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0).unwrap_or(DEFAULT_PORT);
        let address = self.addresses().next()?;
        Some(SidecarTarget { address: AdminAddress::tcp(&address.to_string(), port), name: self.name() })
    }
}

impl ContainerNames {
    /// The name of the container that has this address.
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<&str> {
        self.0.get(&address.to_canonical()).map(|named| named.name.as_str())
    }

    /// When that container was made, in Unix time: what was seen at the address before is another's.
    #[must_use]
    pub fn since(&self, address: IpAddr) -> Option<i64> {
        self.0.get(&address.to_canonical()).map(|named| named.since)
    }

    /// Every address with its name, and since when it has that.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, &str, i64)> {
        self.0.iter().map(|(address, named)| (*address, named.name.as_str(), named.since))
    }

    /// Whether no engine was asked, or it has no container.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, containers: &Containers) {
        for container in &containers.0 {
            let Some(name) = container.name() else { continue };
            let named = Named { name, since: container.created };
            self.0.extend(container.addresses().map(|address| (address, named.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the engine of a compose project with one sidecar, one app beside it and one container without a sidecar answers.
    const LIST: &str = r#"[
      {"Id": "1", "Names": ["/shop-cart-net-1"], "State": "running",
       "Labels": {"portcullis.sidecar-of": "cart", "com.docker.compose.service": "cart-net"},
       "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.3", "GlobalIPv6Address": "fd00::3"}}}},
      {"Id": "2", "Names": ["/shop-cart-proxy-1"], "Labels": {"portcullis.sidecar-of": "cart"},
       "HostConfig": {"NetworkMode": "container:1"}, "NetworkSettings": {"Networks": {}}},
      {"Id": "6", "Names": ["/shop-web-net-1"], "Labels": {"portcullis.sidecar-of": "web", "com.docker.compose.project": "shop"},
       "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.4"}}}},
      {"Id": "7", "Names": ["/shop-web-proxy-1"],
       "Labels": {"portcullis.sidecar-of": "web", "portcullis.admin-socket": "/run/portcullis/admin.sock", "com.docker.compose.project": "shop"},
       "Mounts": [{"Type": "bind", "Source": "/srv/policies", "Destination": "/etc/portcullis/policies"},
                  {"Type": "volume", "Source": "/var/lib/docker/volumes/shop_web-admin/_data", "Destination": "/run/portcullis"}],
       "HostConfig": {"NetworkMode": "container:6"}, "NetworkSettings": {"Networks": {}}},
      {"Id": "8", "Names": ["/shop-ca-1"], "Labels": {"portcullis.component": "ca", "com.docker.compose.service": "ca"},
       "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.5"}}}},
      {"Id": "3", "Names": ["/shop-cron-1"], "Created": 1700000000, "Labels": {"com.docker.compose.service": "cron-report"},
       "NetworkSettings": {"Networks": {"shop_default": {"IPAddress": "172.18.0.9", "GlobalIPv6Address": ""}}}},
      {"Id": "4", "Names": ["/alone"], "Labels": {"portcullis.admin-port": "16000"},
       "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.17.0.2"}}}},
      {"Id": "5", "Names": null, "Labels": null, "NetworkSettings": {"Networks": null}}
    ]"#;

    #[test]
    fn sidecars_are_the_labelled_containers_that_have_an_address() {
        let list = Containers::parse(LIST).unwrap();
        let found: Vec<_> =
            list.sidecars(None).iter().map(|t| (t.name.clone().unwrap(), t.address.to_string())).collect();
        let socket = "unix:/var/lib/docker/volumes/shop_web-admin/_data/admin.sock";
        let expected = [("alone", "172.17.0.2:16000"), ("cart", "172.18.0.3:15000"), ("web", socket)];
        assert_eq!(found, expected.map(|(name, address)| (name.to_owned(), address.to_owned())));
        let names =
            |project| list.sidecars(Some(project)).into_iter().filter_map(|target| target.name).collect::<Vec<_>>();
        assert_eq!((names("shop"), names("other")), (vec!["web".to_owned()], Vec::new()));
    }

    #[test]
    fn a_container_on_a_network_of_a_sidecar_has_none_unless_it_is_beside_it() {
        let one = |id: &str, labels: &str, mode: &str, network: &str| {
            let networks = if network.is_empty() { String::new() } else { format!("\"{network}\": {{}}") };
            format!(
                "{{\"Id\": \"{id}\", \"Names\": [\"/{id}\"], \"Labels\": {{{labels}}}, \"HostConfig\": {{\"NetworkMode\": \"{mode}\"}}, \
                 \"NetworkSettings\": {{\"Networks\": {{{networks}}}}}}}"
            )
        };
        let sidecar = "\"portcullis.sidecar-of\": \"cart\"";
        let list = format!(
            "[{}]",
            [
                one("net", sidecar, "shop", "shop"),
                one("app", "", "container:net", ""),
                one("cron", "", "shop", "shop"),
                one("other", "", "container:cron", ""),
                one("elsewhere", "", "bridge", "bridge"),
            ]
            .join(",")
        );
        assert_eq!(Containers::parse(&list).unwrap().without_sidecar(None), ["cron"]);
        assert_eq!(Containers::parse(LIST).unwrap().without_sidecar(None), ["cron-report"]);
    }

    #[test]
    fn containers_are_called_by_their_service() {
        let mut names = ContainerNames::default();
        names.add(&Containers::parse(LIST).unwrap());
        let name = |address: &str| names.get(address.parse().unwrap());
        assert_eq!(name("172.18.0.9"), Some("cron-report"));
        let since = |address: &str| names.since(address.parse().unwrap());
        assert_eq!((since("172.18.0.9"), since("172.18.0.3")), (Some(1_700_000_000), Some(0)));
        assert_eq!(
            (name("172.18.0.3"), name("fd00::3"), name("::ffff:172.17.0.2")),
            (Some("cart"), Some("cart"), Some("alone"))
        );
        assert_eq!(name("10.0.0.1"), None);
    }

    #[test]
    fn a_list_of_another_form_is_an_error_and_no_panic() {
        assert!(Containers::parse("{\"message\": \"no\"}").is_err());
        assert!(Containers::parse("[{\"Names\": 7}]").is_err());
    }
}
