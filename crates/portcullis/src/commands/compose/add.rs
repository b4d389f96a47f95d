//! `portcullis compose add`: gives services a sidecar, as a text, as files, or at once.

use std::path::{Path, PathBuf};

use clap::ValueHint;
use portcullis_ca::JoinToken;
use portcullis_compose::{ComposeFile, JoinedCa, Plan, Record, Request, ServiceState};
use portcullis_config::HostPort;
use portcullis_identity::TrustDomain;
use portcullis_tls::{Clock, TrustBundle, sha256};
use zeroize::Zeroizing;

use super::client::Client;
use super::project::{MESH_FILE, Original, Project, bad_input, written_header};
use super::status;
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::files::{is_stdin, read_bytes, read_text};
use crate::output::{self, ListArgs};

const MAX_TOKEN_LEN: u64 = 1024;
const MAX_BUNDLE_LEN: u64 = 1024 * 1024;

/// Give services of a compose file a sidecar: writes the whole file to standard output, or, with --write, to compose.mesh.yaml
///
/// The original is not touched. Each SERVICE keeps its name, image and volumes; three more are added: NAME-net holds
/// its network namespace (networks, ports and names go there), makes the redirect rules in it and keeps no privilege, NAME-proxy is
/// the sidecar, and NAME-ready exits when the sidecar is ready, which the app waits for. One certificate authority, ca with ca-init, serves all sidecars. The named services
/// reach each other over mTLS. Labels of a service (`portcullis.server-first-ports`), or the same keys under its x-portcullis, are settings
/// of its sidecar.
///
/// With --write the result is compose.mesh.yaml in the folder of the original, and COMPOSE_FILE in .env names it: from then on plain
/// `docker-compose up`, `restart` and `down` keep the sidecars. --apply does the rest as well: it stops the services (their ports move to
/// NAME-net), starts everything, and shows which services are captured. Services that have a sidecar already keep it. Without a
/// SERVICE, compose.mesh.yaml is made again from the original, after that was changed.
///
/// The folder of the policies must exist (--write makes it); while it is empty the mode is PERMISSIVE. After a reboot run
/// `docker-compose up -d` again: an engine fails to start what it starts before NAME-net, and does not repeat it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis compose add web cart --apply                # services that run now, or do not run yet
  portcullis compose add web cart --write                # only files; says what to run
  portcullis compose add billing --apply                 # one more, later
  portcullis compose add --apply                         # compose.yaml was changed
  portcullis compose add web cart -f compose.yaml -n shop --policies ./mesh/policies > compose.mesh.yaml
  portcullis compose add web --ca ca.example.org:15012 --token-file join-token --apply
  portcullis compose add web -f compose.yaml --override > compose.override.yaml      # Compose v2.24 or newer
  docker compose config | portcullis compose add web -f - > compose.mesh.yaml")]
pub(super) struct Args {
    /// Services that get a sidecar
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// The compose file; `-` is standard input [default: COMPOSE_FILE, else compose.yaml, compose.yml, docker-compose.yml or
    /// docker-compose.yaml in this folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Namespace of the services, as policies name it [default: that of compose.mesh.yaml, else default]
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
    /// Trust domain of the mesh [default: that of compose.mesh.yaml, else cluster.local]
    #[arg(long, value_name = "TD", value_parser = values::trust_domain)]
    trust_domain: Option<TrustDomain>,
    /// Image of the sidecar [default: that of compose.mesh.yaml, else portcullis:latest]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// Folder of the policy files, absolute or relative to the compose file [default: that of compose.mesh.yaml, else ./policies]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    policies: Option<String>,
    /// Join this CA instead of founding another root, such as ca.example.org:15012, as the containers find it
    #[arg(long, value_name = "HOST:PORT", value_parser = values::host_port, requires = "token_file")]
    ca: Option<HostPort>,
    /// With --ca: file with a join token for the services (`portcullis ca join-token create`), absolute or relative to the compose file.
    /// It is mounted, so it must stay, also when it is used up
    #[arg(long, value_name = "FILE", requires = "ca", value_hint = ValueHint::FilePath)]
    token_file: Option<String>,
    /// With --ca: roots of that CA; refuse a token that names another root
    #[arg(long, value_name = "FILE", requires = "ca", value_hint = ValueHint::FilePath)]
    trust_bundle: Option<PathBuf>,
    /// Write compose.mesh.yaml beside the original, and COMPOSE_FILE into .env, so that plain docker-compose commands use it
    #[arg(long)]
    write: bool,
    /// As --write, and then stop the services, start everything, and show which services are captured
    #[arg(long)]
    apply: bool,
    /// Write only what differs, as an override file for Compose v2 (with !reset tags)
    #[arg(long = "override", conflicts_with_all = ["write", "apply"])]
    overlay: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    if args.write || args.apply { write(args) } else { print(args) }
}

/// The text, to standard output.
fn print(args: &Args) -> Outcome {
    if args.services.is_empty() {
        return Err(Failure::message(
            Exit::Usage,
            "name the services that get a sidecar: portcullis compose add SERVICE...",
        ));
    }
    let original = Original::find(args.file.as_deref())?;
    let plan = plan(&original, &request(args, None)?)?;
    let body = if args.overlay { plan.override_file() } else { plan.merged_file() };
    if !args.overlay && !args.file.as_deref().is_some_and(is_stdin) {
        output::note(
            "note: plain docker-compose commands do not use this text; with --write it is compose.mesh.yaml, and .env names it",
        );
    }
    output::text(&format!("{}{body}", header(args, &original.name)))?;
    Ok(Exit::Ok)
}

/// The files, and with `--apply` what follows from them.
fn write(args: &Args) -> Outcome {
    let project = Project::find(args.file.as_deref())?;
    let request = request(args, project.record.as_ref())?;
    if request.services.is_empty() {
        let message = format!("there is no {MESH_FILE} yet; name the services that get a sidecar");
        return Err(Failure::message(Exit::Usage, message));
    }
    let plan = plan(&project.original, &request)?;
    let had = project.record.as_ref().map(|record| record.request.services.clone()).unwrap_or_default();
    let new: Vec<String> = request.services.iter().filter(|service| !had.contains(service)).cloned().collect();
    // Before anything is written: without it there would be files, and nothing that uses them.
    let client = if args.apply { Some(Client::find(&project.folder)?) } else { None };
    let policies = request.policies.clone();
    let record = Record { original: project.original.name.clone(), digest: project.original.digest(), request };
    project.write(&format!("{}{}", written_header(&project.original.name), plan.recorded_file(&record)), &policies)?;
    let Some(client) = client else {
        output::note(&next_steps(&new));
        return Ok(Exit::Ok);
    };
    let engine = status::Engine::default();
    let containers = engine.containers(&project.folder)?;
    let states = record.request.services.iter().map(|service| (service, ServiceState::of(service, &containers)));
    let states: Vec<_> = states.collect();
    // Whatever runs beside its sidecar instead of behind it holds the ports, too.
    let is_beside = |service: &String, state| new.contains(service) || state == ServiceState::Bypassed;
    let beside = states.iter().filter(|(service, state)| is_beside(service, *state));
    let stop: Vec<String> = beside.map(|(service, _)| (*service).clone()).collect();
    if !stop.is_empty() {
        client.run(&["stop"], &stop)?;
    }
    client.run(&["up", "--detach"], &[]).inspect_err(|_| {
        output::note(
            "not everything runs. Correct what Compose says and repeat this; `portcullis compose remove SERVICE --apply` is the way back",
        );
    })?;
    status::restart_orphans(&client, &engine, &project.folder, &record.request.services)?;
    status::report(&project.folder, &engine, ListArgs::default())
}

fn next_steps(new: &[String]) -> String {
    let up = "  docker-compose up --detach\n  portcullis compose status\n(`docker compose` takes the same.)";
    if new.is_empty() {
        return format!("Written. Now run in this folder:\n{up}");
    }
    format!(
        "Written. The ports of a service move to its sidecar, so stop it first. Run in this folder:\n  docker-compose stop {}\n{up}",
        new.join(" ")
    )
}

fn plan(original: &Original, request: &Request) -> Result<Plan, Failure> {
    let refused = |error: portcullis_compose::Error| bad_input(&original.shown, &error);
    let plan = ComposeFile::parse(&original.text).and_then(|file| file.add_sidecars(request)).map_err(refused)?;
    for warning in plan.warnings() {
        output::note(&format!("warning: {}: {warning}", original.shown));
    }
    Ok(plan)
}

/// What the command line says, else what an earlier run was asked for.
fn request(args: &Args, record: Option<&Record>) -> Result<Request, Failure> {
    let earlier = record.map(|record| record.request.clone());
    let mut request = match earlier {
        Some(earlier) => earlier,
        None => Request {
            services: Vec::new(),
            namespace: "default".to_owned(),
            trust_domain: values::trust_domain("cluster.local")
                .map_err(|error| Failure::message(Exit::Usage, error))?,
            image: "portcullis:latest".to_owned(),
            policies: "./policies".to_owned(),
            joined: None,
        },
    };
    for service in &args.services {
        if !request.services.contains(service) {
            request.services.push(service.clone());
        }
    }
    let Request { namespace, trust_domain, image, policies, .. } = &mut request;
    args.namespace.clone_into_some(namespace);
    args.trust_domain.clone_into_some(trust_domain);
    args.image.clone_into_some(image);
    args.policies.as_deref().map(relative).clone_into_some(policies);
    if let Some(joined) = joined(args)? {
        request.joined = Some(joined);
    }
    Ok(request)
}

/// The CA to join. What is wrong with the token is said now, not by a container.
fn joined(args: &Args) -> Result<Option<JoinedCa>, Failure> {
    let (Some(address), Some(file)) = (&args.ca, &args.token_file) else { return Ok(None) };
    // A path of the compose file is relative to its folder.
    let folder = args.file.as_deref().filter(|file| !is_stdin(file)).and_then(Path::parent);
    let found = folder.map_or_else(|| PathBuf::from(file), |folder| folder.join(file));
    let bad = |error: String| Failure::message(Exit::BadInput, format!("{}: {error}", found.display()));
    let token = Zeroizing::new(read_text(&found, MAX_TOKEN_LEN)?);
    let token = JoinToken::parse(token.trim()).map_err(|error| bad(error.to_string()))?;
    if let Some(bundle) = &args.trust_bundle {
        let shown = bundle.display();
        let roots = TrustBundle::from_pem(&read_bytes(bundle, MAX_BUNDLE_LEN)?, Clock::system().now_unix());
        let roots = roots.map_err(|error| Failure::message(Exit::BadInput, format!("{shown}: {error}")))?;
        if !roots.roots().any(|root| sha256(root.der()) == *token.root()) {
            return Err(bad(format!("the root that the token names is not in {shown}: one of them is of another CA")));
        }
    }
    Ok(Some(JoinedCa { address: address.to_string(), token_file: relative(file) }))
}

/// Replaces a value by one that is there.
trait CloneIntoSome<T> {
    fn clone_into_some(&self, target: &mut T);
}

impl<T: Clone> CloneIntoSome<T> for Option<T> {
    fn clone_into_some(&self, target: &mut T) {
        if let Some(value) = self {
            target.clone_from(value);
        }
    }
}

fn header(args: &Args, name: &str) -> String {
    let use_it = if args.overlay {
        "Only what differs: for `docker compose -f ORIGINAL -f THIS`, Compose v2.24 or newer.".to_owned()
    } else {
        "Comments of the original are not kept, its anchors are written out.\n\
         # Plain docker-compose commands do not use this file, and start the services without their sidecars: name it in each\n\
         # command (`docker-compose --file THIS up --detach`), or make it with --write, which names it in .env."
            .to_owned()
    };
    format!(
        "# Made by `portcullis compose add {}` ({}) from {}.\n\
         # Change the original and run it again. {use_it}\n\
         # Keep this file in the folder of the original: paths are relative. The folder of the policies must exist.\n",
        args.services.join(" "),
        env!("CARGO_PKG_VERSION"),
        name.escape_debug(),
    )
}

/// Some versions of Compose take a path without a leading `/`, `.` or `~` for the name of a volume.
fn relative(folder: &str) -> String {
    if folder.starts_with(['/', '.', '~']) { folder.to_owned() } else { format!("./{folder}") }
}
