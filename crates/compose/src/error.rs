//! Why a compose file cannot be read, or cannot get the sidecars.

use std::fmt;

use portcullis_yaml::by_distance;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing in it.
    #[error("is empty: was it to be written by a command that has failed?")]
    Empty,
    /// A line is indented with a tab, which YAML does not have.
    #[error("line {line}: is indented with a tab; YAML takes spaces only")]
    Tab {
        /// The first such line, from 1.
        line: usize,
    },
    /// The text is not YAML.
    #[error("{0}")]
    Syntax(#[source] serde_yaml::Error),
    /// A merge key does not name a mapping.
    #[error("a merge key (<<): {0}")]
    MergeKey(#[source] serde_yaml::Error),
    /// The document is a list or a scalar.
    #[error("is not a compose file: expected a mapping with services")]
    NotAMapping,
    /// The file was read, but the sidecars cannot be added. Every problem is listed.
    #[error("{}", Lines(.0))]
    Refused(Vec<Problem>),
}

impl Error {
    /// Every problem on its own: one line of output each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Refused(problems) => problems.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// One reason why the sidecars cannot be added.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// There is no mapping `services`.
    #[error("has no services; is it a compose file?")]
    NoServices,
    /// A requested service does not exist.
    #[error("there is no service {name:?}; {}", near(name, present))]
    UnknownService {
        /// The name that was asked for.
        name: String,
        /// The names of the services that exist.
        present: Vec<String>,
    },
    /// Other files belong to it.
    #[error(
        "has include, which is not resolved here; write one file: `docker compose config > compose.all.yaml`, and name that one"
    )]
    Include,
    /// Its record was changed by hand.
    #[error(
        "was made by `portcullis compose add`, but x-portcullis.{0} is not readable; make it again from the original"
    )]
    Record(&'static str),
    /// The CA needs the name of an existing service.
    #[error("already has a service {0}, a name that the CA needs; rename it")]
    CaServiceNameTaken(String),
    /// The CA needs the name of an existing volume.
    #[error("already has a volume {0}, a name that the CA needs; rename it")]
    CaVolumeNameTaken(String),
    /// A CA is to be joined, and the file runs one itself.
    #[error("runs a CA itself (service {0}); to join another one, remove it, or leave out --ca")]
    OwnCa(String),
    /// The services of a CA are not one of each kind.
    #[error(
        "has {run} services that run `ca run` and {init} that run `ca init`; a CA is one of each: remove the others, or \
         register the sidecars by hand"
    )]
    CaServiceCount {
        /// Services whose command starts with `ca run`.
        run: usize,
        /// Services whose command starts with `ca init`.
        init: usize,
    },
    /// A service is the reason.
    #[error("service {service}: {reason}")]
    Service {
        /// The name of the service.
        service: String,
        /// What is wrong with it.
        reason: Reason,
    },
}

impl Problem {
    /// A problem of one service.
    pub(crate) fn of_service(service: &str, reason: Reason) -> Self {
        Self::Service { service: service.to_owned(), reason }
    }
}

/// What is wrong with a service.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Reason {
    /// The definition is not a mapping.
    #[error("is not a mapping")]
    NotAMapping,
    /// The name cannot be part of a SPIFFE ID.
    #[error(
        "cannot be the name of a workload ({}); rename it, and keep the old name as an alias in networks",
        portcullis_config::NAME_RULE
    )]
    InvalidName,
    /// It is part of the CA.
    #[error("is part of the CA, whose clients have no certificate yet")]
    IsCa,
    /// It was generated for another service.
    #[error("is part of a sidecar")]
    IsSidecar,
    /// An earlier run added the sidecar.
    #[error("already has a sidecar")]
    HasSidecar,
    /// A generated service would have the name of an existing one.
    #[error("its sidecar needs the name {0}, which a service already has; rename that service")]
    ServiceNameTaken(String),
    /// A generated volume would have the name of an existing one.
    #[error("its sidecar needs the name {0}, which a volume already has; rename that volume")]
    VolumeNameTaken(String),
    /// It runs as the user whose connections are not redirected.
    #[error(
        "runs as user {0}, whose connections bypass the redirect because they are the sidecar's own (Istio's IST0144); \
         choose another user"
    )]
    RunsAsProxyUser(&'static str),
    /// It extends a service that gets a sidecar.
    #[error("extends {0}, which gets a sidecar, and would inherit only a part of it; write out what it inherits")]
    ExtendsMeshed(String),
    /// It has a network mode of its own.
    #[error(
        "already has network_mode {0:?}; a sidecar needs a network namespace of its own: remove that line, or name the \
         service that it joins"
    )]
    NetworkMode(String),
    /// It inherits from another service.
    #[error("uses extends, which is not resolved here; run this on the output of `docker compose config`")]
    UsesExtends,
    /// It runs on every node.
    #[error("has deploy.mode: global; a sidecar has one network namespace, so there can be only one instance")]
    GlobalDeployment,
    /// It has more than one replica.
    #[error(
        "has {key}: {count}; a service with a sidecar cannot be scaled, because it has one network namespace: write 1, or \
         one service per replica"
    )]
    Scaled {
        /// `scale` or `deploy.replicas`.
        key: &'static str,
        /// The number of replicas as it is written.
        count: String,
    },
    /// A published port is one on which the sidecar listens.
    #[error("publishes {written}, but the sidecar uses port {port}; let the app use another port")]
    PublishesSidecarPort {
        /// The entry of `ports`.
        written: String,
        /// The port of the sidecar.
        port: u16,
    },
    /// A key has neither of its two forms.
    #[error("{0} is neither a list nor a mapping")]
    NeitherListNorMapping(&'static str),
    /// An entry of `networks` is not a mapping.
    #[error("an entry of networks is not a mapping")]
    NetworkEntry,
    /// `links` is not a list.
    #[error("links is not a list")]
    LinksNotAList,
    /// `ca run` has no `--bootstrap`.
    #[error("runs without --bootstrap, so it writes no tokens for sidecars; add --bootstrap DIR")]
    CaWithoutBootstrap,
    /// `ca run` has no port that clients can connect to.
    #[error("has no --listen with a port, so sidecars cannot be configured with its address")]
    CaWithoutPort,
    /// The CA is not on a network of the file.
    #[error("has a network_mode; sidecars must reach the CA over a network")]
    CaNetworkMode,
    /// The CA's certificate does not have the name that sidecars connect to.
    #[error("its certificate does not have the name {0}, to which sidecars connect; add `--name {0}`")]
    CaWithoutName(String),
    /// The CA has another trust domain.
    #[error("its trust domain is {found}, not {requested}")]
    CaTrustDomain {
        /// The trust domain of the CA.
        found: String,
        /// The trust domain that was asked for.
        requested: String,
    },
    /// `ca init` does nothing on a second start.
    #[error("without --keep-existing it registers no new sidecar on a second start; add it")]
    CaWithoutKeepExisting,
    /// A label or a key of `x-portcullis` is not known.
    #[error("has the setting portcullis.{key}, which is not known; there are: {}", .known.join(", "))]
    UnknownSetting {
        /// Without the prefix.
        key: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A setting has a value that it cannot have.
    #[error("has portcullis.{key}: {text:?}; expected {expected}")]
    Setting {
        /// Without the prefix.
        key: String,
        /// What is written.
        text: String,
        /// What could be.
        expected: &'static str,
    },
    /// A label and `x-portcullis` say the same.
    #[error("has portcullis.{0} twice, as a label and in x-portcullis; keep one")]
    SettingTwice(String),
    /// It is on the host's network.
    #[error(
        "is on the host's network (network_mode: host): redirect rules there would capture the whole host. Give it a sidecar with \
         explicit ports beside it: docs/guides/compose.md, \"Without NET_ADMIN\""
    )]
    HostNetwork,
    /// The configuration of an existing sidecar cannot be extended.
    #[error("already has a sidecar, but {0}; run this on the original, with all services that get a sidecar")]
    ExistingSidecar(ExistingProblem),
}

/// Why an existing sidecar cannot be extended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ExistingProblem {
    /// The proxy has no configuration in its environment.
    #[error("its {proxy} has no configuration in {variable}")]
    NoConfiguration {
        /// The name of the proxy's service.
        proxy: String,
        /// The environment variable.
        variable: &'static str,
    },
    /// The configuration is not YAML.
    #[error("the configuration of {proxy} is not valid YAML: {error}")]
    Syntax {
        /// The name of the proxy's service.
        proxy: String,
        /// The parser's message.
        error: String,
    },
    /// The certificate does not come from the CA.
    #[error("{0} does not get its certificate from the CA")]
    OtherIdentitySource(String),
    /// The configuration lacks the parts of a SPIFFE ID.
    #[error("the configuration of {0} has no mesh.trustDomain or no workload.namespace")]
    NoIdentity(String),
    /// The services of the configuration are no list.
    #[error("services in the configuration of {0} is not a list")]
    NoServices(String),
    /// The network of its namespace holder has an unknown form.
    #[error("{}", joined(.0))]
    Network(Vec<Reason>),
}

fn joined(reasons: &[Reason]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The services that the name may have been meant for, and how many others there are; all of them if they are few.
fn near(name: &str, present: &[String]) -> String {
    const NAMED: usize = 3;
    const FEW: usize = 5;
    if present.is_empty() {
        return "the file has none".to_owned();
    }
    if present.len() <= FEW {
        return format!("the file has: {}", present.join(", "));
    }
    let all: Vec<&str> = present.iter().map(String::as_str).collect();
    let named = by_distance(name, &all).into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    format!("the nearest are {named}; the file has {} more", all.len().saturating_sub(NAMED))
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn many_services_are_not_listed() {
        let names = |count: usize| -> Vec<String> { (1..=count).map(|n| format!("service-{n}")).collect() };
        assert_eq!(near("x", &[]), "the file has none");
        assert_eq!(near("x", &names(2)), "the file has: service-1, service-2");
        assert_eq!(
            near("service27", &names(28)),
            "the nearest are service-27, service-17, service-2; the file has 25 more"
        );
    }
}
