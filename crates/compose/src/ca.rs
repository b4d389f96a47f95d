//! The CA that issues the certificates of all sidecars: the one in the file, a new one, or one that is joined.

use portcullis_identity::SpiffeId;
use serde_yaml::{Mapping, Value};

use crate::error::{Error, Problem, Reason};
use crate::file::ComposeFile;
use crate::names::{COMPONENT, SidecarNames};
use crate::plan::Plan;
use crate::request::{JoinedCa, Request};
use crate::service::MeshedService;
use crate::spec::{self, NamedService, keys};
use crate::yaml::{list, map, scalar};

/// Services of a new CA.
const INIT_SERVICE: &str = "ca-init";
const RUN_SERVICE: &str = "ca";
/// The service that joins a CA which is there already, and exits.
pub(crate) const JOIN_SERVICE: &str = "ca-join";
/// Where it finds the join token.
const JOIN_TOKEN: &str = "/run/portcullis/join-token";
const VOLUME: &str = "portcullis-authority";
/// Where both services mount the volume.
const CA_DIR: &str = "/var/lib/portcullis/ca";
/// Where `ca run` writes a token for each identity.
const BOOTSTRAP_DIR: &str = "/var/lib/portcullis/bootstrap";
const PORT: &str = "15012";

/// Where sidecars get their certificates.
#[derive(Debug)]
pub(crate) enum Ca {
    /// The file has no CA yet.
    New,
    /// The file has a service that runs `ca run`, and one that runs `ca init`.
    Existing(ExistingCa),
    /// Another project or host has one.
    Joined(JoinedCa),
}

/// A CA that the file already has.
#[derive(Debug)]
pub(crate) struct ExistingCa {
    run_service: String,
    init_service: String,
    init_command: Vec<String>,
    address: String,
    bootstrap_dir: String,
}

/// A service that runs a subcommand of `portcullis ca`.
struct CaService<'a> {
    name: String,
    definition: &'a Value,
    command: Vec<String>,
}

impl Ca {
    /// The CA of the file, or every reason why it can have none.
    pub(crate) fn find(file: &ComposeFile, request: &Request) -> Result<Self, Error> {
        let services = file.services()?;
        let running = |subcommand: [&str; 2]| {
            let all = services.iter().filter_map(move |(name, definition)| {
                let command = command(definition.get("command")?)?;
                let matches = command.iter().map(String::as_str).take(2).eq(subcommand);
                matches.then_some(CaService { name: scalar(name)?, definition, command })
            });
            all.collect::<Vec<_>>()
        };
        let (run, init) = (running(["ca", "run"]), running(["ca", "init"]));
        if let Some(joined) = &request.joined {
            let own = run.iter().chain(&init).map(|service| Problem::OwnCa(service.name.clone()));
            let taken =
                services.contains_key(JOIN_SERVICE).then(|| Problem::CaServiceNameTaken(JOIN_SERVICE.to_owned()));
            let problems: Vec<_> = own.chain(taken).collect();
            return if problems.is_empty() { Ok(Self::Joined(joined.clone())) } else { Err(Error::Refused(problems)) };
        }
        match (run.as_slice(), init.as_slice()) {
            ([], []) => new_ca(file, services),
            ([run], [init]) => ExistingCa::read(run, init, request).map(Self::Existing).map_err(Error::Refused),
            (run, init) => Err(Error::Refused(vec![Problem::CaServiceCount { run: run.len(), init: init.len() }])),
        }
    }

    /// The address to which sidecars connect.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::New => format!("{RUN_SERVICE}:{PORT}"),
            Self::Existing(ca) => ca.address.clone(),
            Self::Joined(ca) => ca.address.clone(),
        }
    }

    /// Whether a service is part of the CA.
    pub(crate) fn includes(&self, service: &str) -> bool {
        matches!(self, Self::Existing(ca) if ca.run_service == service || ca.init_service == service)
    }

    /// Adds the CA to the plan and registers the services in `meshed`.
    pub(crate) fn register(&self, meshed: &[&MeshedService], file: &ComposeFile, request: &Request, plan: &mut Plan) {
        match self {
            Self::New => {
                plan.add_volume(VOLUME, Value::Mapping(Mapping::new()));
                for (name, definition) in
                    [(INIT_SERVICE, init_service(meshed, request)), (RUN_SERVICE, run_service(meshed, request))]
                {
                    plan.add_service(NamedService { name: name.to_owned(), definition });
                }
            }
            Self::Existing(ca) => ca.register(meshed, file, plan),
            Self::Joined(ca) => {
                let (name, definition) = (JOIN_SERVICE.to_owned(), join_service(ca, meshed, request));
                plan.add_service(NamedService { name, definition });
            }
        }
    }
}

/// Whether the names that a new CA needs are free.
fn new_ca(file: &ComposeFile, services: &Mapping) -> Result<Ca, Error> {
    let taken = [INIT_SERVICE, RUN_SERVICE].into_iter().filter(|name| services.contains_key(name));
    let mut problems: Vec<_> = taken.map(|name| Problem::CaServiceNameTaken(name.to_owned())).collect();
    if file.has_volume(VOLUME) {
        problems.push(Problem::CaVolumeNameTaken(VOLUME.to_owned()));
    }
    if problems.is_empty() { Ok(Ca::New) } else { Err(Error::Refused(problems)) }
}

impl ExistingCa {
    fn read(run: &CaService<'_>, init: &CaService<'_>, request: &Request) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut report =
            |service: &CaService<'_>, reason: Reason| problems.push(Problem::of_service(&service.name, reason));
        let bootstrap_dir = option(&run.command, "--bootstrap").unwrap_or_default();
        if bootstrap_dir.is_empty() {
            report(run, Reason::CaWithoutBootstrap);
        }
        let listen = option(&run.command, "--listen").unwrap_or_default();
        let port = listen.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if port.is_none() {
            report(run, Reason::CaWithoutPort);
        }
        if run.definition.get("network_mode").is_some() {
            report(run, Reason::CaNetworkMode);
        }
        let mut pairs = run.command.windows(2);
        if !pairs.any(|pair| pair == ["--name", run.name.as_str()]) {
            report(run, Reason::CaWithoutName(run.name.clone()));
        }
        let domain = option(&init.command, "--trust-domain").unwrap_or("cluster.local");
        if domain != request.trust_domain.as_str() {
            let requested = request.trust_domain.to_string();
            report(init, Reason::CaTrustDomain { found: domain.to_owned(), requested });
        }
        if !init.command.iter().any(|word| word == "--keep-existing") {
            report(init, Reason::CaWithoutKeepExisting);
        }
        match port {
            Some(port) if problems.is_empty() => Ok(Self {
                run_service: run.name.clone(),
                init_service: init.name.clone(),
                init_command: init.command.clone(),
                address: format!("{}:{port}", run.name),
                bootstrap_dir: bootstrap_dir.to_owned(),
            }),
            _ => Err(problems),
        }
    }

    fn register(&self, meshed: &[&MeshedService], file: &ComposeFile, plan: &mut Plan) {
        let mut words = self.init_command.clone();
        for service in meshed.iter().filter(|service| !self.init_command.contains(&service.id)) {
            words.extend(["--id".to_owned(), service.id.clone()]);
        }
        plan.set(&self.init_service, "command", Some(list(words)));
        let run = file.service(&self.run_service);
        let mut volumes =
            run.and_then(|run| run.get("volumes")).and_then(Value::as_sequence).cloned().unwrap_or_default();
        volumes.extend(meshed.iter().filter_map(|service| token_volume(service, &self.bootstrap_dir)).map(Value::from));
        plan.set(&self.run_service, "volumes", Some(Value::Sequence(volumes)));
        let mut networks = match run.and_then(|run| run.get("networks")) {
            Some(Value::Mapping(networks)) => networks.clone(),
            Some(Value::Sequence(names)) => names.iter().map(|name| (name.clone(), Value::Null)).collect(),
            _ => [(Value::from("default"), Value::Null)].into_iter().collect(),
        };
        for (name, _) in meshed.iter().flat_map(|service| &service.networks) {
            if !networks.contains_key(name) {
                networks.insert(name.clone(), Value::Null);
            }
        }
        plan.set(&self.run_service, "networks", Some(Value::Mapping(networks)));
    }
}

/// The words of a command: a list, or a text without quotes, which splits at its spaces.
fn command(written: &Value) -> Option<Vec<String>> {
    match written {
        Value::Sequence(words) => words.iter().map(scalar).collect(),
        Value::String(text) if !text.contains(['"', '\'', '\\']) => {
            Some(text.split_whitespace().map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// The value of an option.
fn option<'c>(command: &'c [String], name: &str) -> Option<&'c str> {
    let at = command.iter().position(|word| word == name)?;
    command.get(at.checked_add(1)?).map(String::as_str)
}

/// Mounts a sidecar's identity volume at the CA, which renews the token in it.
fn token_volume(service: &MeshedService, bootstrap_dir: &str) -> Option<String> {
    let id = SpiffeId::parse(&service.id).ok()?;
    let istio = id.istio()?;
    let volume = SidecarNames::of(&service.name).identity_volume;
    Some(format!("{volume}:{bootstrap_dir}/{}/{}", istio.namespace, istio.service_account))
}

/// Creates the CA on the first start, and registers what was added since on each later one. It has no network.
fn init_service(meshed: &[&MeshedService], request: &Request) -> Value {
    let domain = request.trust_domain.to_string();
    let mut words =
        ["ca", "init", "--keep-existing", "--dir", CA_DIR, "--trust-domain", &domain].map(str::to_owned).to_vec();
    words.extend(meshed.iter().flat_map(|service| ["--id".to_owned(), service.id.clone()]));
    let service = keys([
        ("command", list(words)),
        ("network_mode", Value::from("none")),
        ("user", Value::from(spec::USER)),
        ("healthcheck", spec::no_healthcheck()),
        ("volumes", list([format!("{VOLUME}:{CA_DIR}")])),
        ("labels", map([(COMPONENT, Value::from(INIT_SERVICE))])),
    ]);
    spec::hardened(request, service)
}

fn run_service(meshed: &[&MeshedService], request: &Request) -> Value {
    let listen = format!("[::]:{PORT}");
    let words =
        ["ca", "run", "--dir", CA_DIR, "--listen", &listen, "--name", RUN_SERVICE, "--bootstrap", BOOTSTRAP_DIR]
            .map(str::to_owned);
    let mut volumes = vec![format!("{VOLUME}:{CA_DIR}")];
    volumes.extend(meshed.iter().filter_map(|service| token_volume(service, BOOTSTRAP_DIR)));
    let service = keys([
        ("command", list(words)),
        ("networks", list(networks(meshed))),
        ("user", Value::from(spec::USER)),
        ("restart", Value::from("unless-stopped")),
        ("volumes", list(volumes)),
        ("depends_on", map([(INIT_SERVICE, spec::condition("service_completed_successfully"))])),
        ("healthcheck", spec::healthcheck(&["ca", "status", "--dir", CA_DIR])),
        ("labels", map([(COMPONENT, Value::from(RUN_SERVICE))])),
    ]);
    spec::hardened(request, service)
}

/// Gets the first token of each sidecar, where it has none yet. Each sidecar replaces its own afterwards.
fn join_service(ca: &JoinedCa, meshed: &[&MeshedService], request: &Request) -> Value {
    let words = ["join", &ca.address, "--token-file", JOIN_TOKEN, "--out", BOOTSTRAP_DIR, "--keep-existing"];
    let mut words =
        words.into_iter().chain(["--owner", spec::USER, "--timeout", "60s"]).map(str::to_owned).collect::<Vec<_>>();
    words.extend(meshed.iter().flat_map(|service| ["--id".to_owned(), service.id.clone()]));
    let token = map([
        ("type", Value::from("bind")),
        ("source", Value::from(spec::escaped(&ca.token_file))),
        ("target", Value::from(JOIN_TOKEN)),
        ("read_only", Value::from(true)),
    ]);
    let mut volumes = vec![token];
    volumes.extend(meshed.iter().filter_map(|service| token_volume(service, BOOTSTRAP_DIR)).map(Value::from));
    let service = keys([
        ("command", list(words)),
        ("networks", list(networks(meshed))),
        // The token belongs to whoever has put it there and is readable by nobody else; what is written belongs to the sidecars.
        ("user", Value::from("0:0")),
        ("cap_add", list(["CHOWN", "DAC_OVERRIDE"])),
        ("restart", Value::from("no")),
        ("volumes", Value::Sequence(volumes)),
        ("healthcheck", spec::no_healthcheck()),
        ("labels", map([(COMPONENT, Value::from(JOIN_SERVICE))])),
    ]);
    spec::hardened(request, service)
}

/// Every network that has a sidecar.
fn networks(meshed: &[&MeshedService]) -> Vec<String> {
    let mut networks: Vec<String> = Vec::new();
    for name in meshed.iter().flat_map(|service| &service.networks).filter_map(|(name, _)| scalar(name)) {
        if !networks.contains(&name) {
            networks.push(name);
        }
    }
    networks
}
