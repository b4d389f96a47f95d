//! The certificate authority of a compose file: the one that is in it, or a new one. It serves all sidecars.

use portcullis_identity::SpiffeId;
use serde_yaml::{Mapping, Value};

use super::network::Meshed;
use super::yaml::{list, map, scalar};
use super::{Plan, Request, parts};

const INIT: &str = "ca-init";
const RUN: &str = "ca";
const VOLUME: &str = "portcullis-ca-server";
/// Where both have the volume.
const FOLDER: &str = "/var/lib/portcullis/ca";
/// Where a token lies ready for each identity.
const BOOTSTRAP: &str = "/var/lib/portcullis/bootstrap";
const PORT: &str = "15012";

/// Where sidecars ask, and what has to change so that they are answered.
#[derive(Debug)]
pub(super) enum Authority {
    /// There is none yet.
    New,
    /// `ca run` is in the file, and `ca init` with it.
    Standing(Standing),
}

#[derive(Debug)]
pub(super) struct Standing {
    run: String,
    init: String,
    init_command: Vec<String>,
    address: String,
    bootstrap: String,
}

impl Authority {
    /// The one of the file, or every reason why there can be none.
    pub(super) fn of(document: &Mapping, services: &Mapping, request: &Request) -> Result<Self, Vec<String>> {
        let runs = |words: [&str; 2]| {
            let all = services.iter().filter_map(move |(name, service)| {
                let command = command(service.get("command")?)?;
                let is_it = command.iter().map(String::as_str).take(2).eq(words);
                is_it.then_some((scalar(name)?, service, command))
            });
            all.collect::<Vec<_>>()
        };
        match (runs(["ca", "run"]).as_slice(), runs(["ca", "init"]).as_slice()) {
            ([], []) => free(document, services),
            ([run], [(init, _, init_command)]) => Standing::read(run, init, init_command, request).map(Self::Standing),
            (run, init) => Err(vec![format!(
                "{} services have the command `ca run`, and {} `ca init`; one of each makes an authority, so register the \
                 sidecars by hand, or remove what is too much",
                run.len(),
                init.len()
            )]),
        }
    }

    /// Where a sidecar finds it.
    pub(super) fn address(&self) -> String {
        match self {
            Self::New => format!("{RUN}:{PORT}"),
            Self::Standing(standing) => standing.address.clone(),
        }
    }

    /// Whether a service is a part of it.
    pub(super) fn is(&self, service: &str) -> bool {
        matches!(self, Self::Standing(standing) if standing.run == service || standing.init == service)
    }

    /// Puts it into the plan, for sidecars beside `meshed`.
    pub(super) fn serve(&self, meshed: &[&Meshed], services: &Mapping, request: &Request, plan: &mut Plan) {
        match self {
            Self::New => {
                plan.volumes.push((VOLUME.to_owned(), Value::Mapping(Mapping::new())));
                plan.further.push((INIT.to_owned(), init(meshed, request)));
                plan.further.push((RUN.to_owned(), run(meshed, request)));
            }
            Self::Standing(standing) => standing.serve(meshed, services, plan),
        }
    }
}

/// Whether the names of a new one are to be had.
fn free(document: &Mapping, services: &Mapping) -> Result<Authority, Vec<String>> {
    let mut problems = Vec::new();
    for name in [INIT, RUN].into_iter().filter(|name| services.contains_key(name)) {
        problems.push(format!("has a service {name} already, which would be the authority's; rename it"));
    }
    let volumes = document.get("volumes").and_then(Value::as_mapping);
    if volumes.is_some_and(|volumes| volumes.contains_key(VOLUME)) {
        problems.push(format!("has a volume {VOLUME} already, which would be the authority's; rename it"));
    }
    if problems.is_empty() { Ok(Authority::New) } else { Err(problems) }
}

impl Standing {
    fn read(
        (run, service, command): &(String, &Value, Vec<String>),
        init: &str,
        init_command: &[String],
        request: &Request,
    ) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut told = |text: &str| problems.push(format!("service {run}: {text}"));
        let bootstrap = option(command, "--bootstrap").unwrap_or_default();
        if bootstrap.is_empty() {
            told("runs without --bootstrap, so no token lies ready for a sidecar; say --bootstrap DIR");
        }
        let listen = option(command, "--listen").unwrap_or_default();
        let port = listen.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        if port.is_none() {
            told("has no --listen with a port, so sidecars cannot be told where it is");
        }
        if service.get("network_mode").is_some() {
            told("has a network_mode; sidecars have to reach it over a network");
        }
        let names: Vec<_> = command.windows(2).filter(|pair| pair.first().is_some_and(|key| key == "--name")).collect();
        if !names.iter().any(|pair| pair.last() == Some(run)) {
            told(&format!("its certificate is not for {run}, the name that sidecars dial; add `--name {run}`"));
        }
        let domain = option(init_command, "--trust-domain").unwrap_or("cluster.local");
        if domain != request.trust_domain.as_str() {
            problems.push(format!("service {init}: its trust domain is {domain}, and not {}", request.trust_domain));
        }
        if !init_command.iter().any(|word| word == "--keep-existing") {
            problems
                .push(format!("service {init}: registers nobody on a second start without --keep-existing; add it"));
        }
        match port {
            Some(port) if problems.is_empty() => Ok(Self {
                run: run.clone(),
                init: init.to_owned(),
                init_command: init_command.to_vec(),
                address: format!("{run}:{port}"),
                bootstrap: bootstrap.to_owned(),
            }),
            _ => Err(problems),
        }
    }

    fn serve(&self, meshed: &[&Meshed], services: &Mapping, plan: &mut Plan) {
        let mut words = self.init_command.clone();
        for service in meshed.iter().filter(|service| !self.init_command.contains(&service.id)) {
            words.extend(["--id".to_owned(), service.id.clone()]);
        }
        plan.set(&self.init, "command", Some(list(words)));
        let own = services.get(self.run.as_str());
        let mut volumes =
            own.and_then(|own| own.get("volumes")).and_then(Value::as_sequence).cloned().unwrap_or_default();
        volumes.extend(meshed.iter().filter_map(|service| token_volume(service, &self.bootstrap)).map(Value::from));
        plan.set(&self.run, "volumes", Some(Value::Sequence(volumes)));
        let mut networks = match own.and_then(|own| own.get("networks")) {
            Some(Value::Mapping(networks)) => networks.clone(),
            Some(Value::Sequence(names)) => names.iter().map(|name| (name.clone(), Value::Null)).collect(),
            _ => [(Value::from("default"), Value::Null)].into_iter().collect(),
        };
        for (name, _) in meshed.iter().flat_map(|service| &service.networks) {
            if !networks.contains_key(name) {
                networks.insert(name.clone(), Value::Null);
            }
        }
        plan.set(&self.run, "networks", Some(Value::Mapping(networks)));
    }
}

/// A command as a list of words, if it is one or can be cut at its spaces.
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

/// The identity volume of a sidecar, where the authority keeps its token fresh.
fn token_volume(service: &Meshed, bootstrap: &str) -> Option<String> {
    let id = SpiffeId::parse(&service.id).ok()?;
    let istio = id.istio()?;
    Some(format!("{}:{bootstrap}/{}/{}", service.identity(), istio.namespace, istio.service_account))
}

/// Makes the authority on the first start, and registers who was added since. It has no network.
fn init(meshed: &[&Meshed], request: &Request) -> Value {
    let domain = request.trust_domain.to_string();
    let mut words =
        ["ca", "init", "--keep-existing", "--dir", FOLDER, "--trust-domain", &domain].map(str::to_owned).to_vec();
    words.extend(meshed.iter().flat_map(|service| ["--id".to_owned(), service.id.clone()]));
    parts::hardened(
        request,
        parts::part([
            ("command", list(words)),
            ("network_mode", Value::from("none")),
            ("user", Value::from(parts::USER)),
            ("healthcheck", parts::no_healthcheck()),
            ("volumes", list([format!("{VOLUME}:{FOLDER}")])),
        ]),
    )
}

fn run(meshed: &[&Meshed], request: &Request) -> Value {
    let listen = format!("[::]:{PORT}");
    let words =
        ["ca", "run", "--dir", FOLDER, "--listen", &listen, "--name", RUN, "--bootstrap", BOOTSTRAP].map(str::to_owned);
    let mut volumes = vec![format!("{VOLUME}:{FOLDER}")];
    volumes.extend(meshed.iter().filter_map(|service| token_volume(service, BOOTSTRAP)));
    let mut networks: Vec<String> = Vec::new();
    for name in meshed.iter().flat_map(|service| &service.networks).filter_map(|(name, _)| scalar(name)) {
        if !networks.contains(&name) {
            networks.push(name);
        }
    }
    parts::hardened(
        request,
        parts::part([
            ("command", list(words)),
            ("networks", list(networks)),
            ("user", Value::from(parts::USER)),
            ("restart", Value::from("unless-stopped")),
            ("volumes", list(volumes)),
            ("depends_on", map([(INIT, parts::condition("service_completed_successfully"))])),
            ("healthcheck", parts::healthcheck(&["ca", "status", "--dir", FOLDER])),
        ]),
    )
}
