//! `portcullis compose status`: whether the services run behind their sidecars, as compose.mesh.yaml says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_compose::{Container, ServiceState};
use portcullis_discovery::{EngineError, StackContainer, stack};
use serde::Serialize;

use super::client::Client;
use super::project::{MESH_FILE, Project, generated, is_used};
use crate::commands::{proxies, values};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, Cell, List, ListArgs, Style, Table};

/// Show whether services run behind their sidecars: 0 yes, 1 one does not
///
/// Compares the containers of this folder's project with compose.mesh.yaml. A service that was started from the original file by habit
/// (`docker-compose -f compose.yaml up`) runs in a network of its own, in plaintext and without a policy: it is `bypassed`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis compose status
  portcullis compose status -f /srv/shop/compose.yaml -o json")]
pub(super) struct Args {
    /// The original compose file, or compose.mesh.yaml [default: that of this folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    engine: Engine,
    #[command(flatten)]
    list: ListArgs,
}

/// The container engine to ask.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Engine {
    /// Socket of the container engine [default: that of $DOCKER_HOST, else /var/run/docker.sock]
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    docker: Option<PathBuf>,
    /// How long it may take to answer, such as 500ms or 10s
    #[arg(long, value_name = "DURATION", value_parser = values::timeout, default_value = "10s")]
    timeout: Duration,
}

impl Default for Engine {
    fn default() -> Self {
        Self { docker: None, timeout: Duration::from_secs(10) }
    }
}

impl Engine {
    /// The containers of the projects of a folder.
    pub(super) fn containers(&self, folder: &Path) -> Result<Vec<Container>, Failure> {
        let socket = self.docker.clone().unwrap_or_else(proxies::engine_socket);
        let folder = fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let all = runtime.block_on(stack(&socket, &folder, self.timeout)).map_err(|error| {
            let exit = if matches!(error, EngineError::Denied) { Exit::NoPermission } else { Exit::Unreachable };
            Failure::message(exit, format!("{}: {error}", socket.display()))
        })?;
        Ok(all.into_iter().map(container).collect())
    }
}

/// What its state depends on.
pub(crate) fn container(found: StackContainer) -> Container {
    let StackContainer { id, service, running, started, joined, error, .. } = found;
    Container { id, service, running, started, joined, failed: !error.is_empty() }
}

/// One service, for programs.
#[derive(Serialize)]
struct Row {
    service: String,
    state: &'static str,
    message: &'static str,
}

pub(super) fn run(args: &Args) -> Outcome {
    let folder = args.file.as_deref().and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    report(folder.unwrap_or_else(|| Path::new(".")), &args.engine, args.list)
}

/// Restarts the services whose holder was started anew, with other ports for one: Compose sees no difference in them.
pub(super) fn restart_orphans(
    client: &Client,
    engine: &Engine,
    folder: &Path,
    services: &[String],
) -> Result<(), Failure> {
    let containers = engine.containers(folder)?;
    let is_orphaned = |service: &&String| ServiceState::of(service, &containers) == ServiceState::Orphaned;
    let orphaned: Vec<String> = services.iter().filter(is_orphaned).cloned().collect();
    if orphaned.is_empty() { Ok(()) } else { client.run(&["restart"], &orphaned) }
}

/// `file` names the file where the folder's `.env` does not.
fn mending(state: ServiceState, service: &str, file: &str) -> String {
    let commands = state.mending(service).into_iter().map(|command| format!("`docker-compose{file} {command}`"));
    commands.collect::<Vec<_>>().join(" and ")
}

/// Writes the list, and what undoes the protection to standard error.
pub(super) fn report(folder: &Path, engine: &Engine, list: ListArgs) -> Outcome {
    let Some(services) = generated(folder)? else {
        // It says what there is instead.
        return Project::existing(Some(&folder.join(MESH_FILE))).map(|_| Exit::Ok);
    };
    // Made by redirection, it runs as well as any other, and knows nothing of its original.
    let project = Project::existing(Some(&folder.join(MESH_FILE))).ok().map(|(project, _)| project);
    let containers = engine.containers(folder)?;
    let states: Vec<(String, ServiceState)> =
        services.into_iter().map(|service| (service.clone(), ServiceState::of(&service, &containers))).collect();
    let rows: Vec<Row> = states
        .iter()
        .map(|(service, state)| Row { service: service.clone(), state: state.as_str(), message: state.explanation() })
        .collect();
    let shown = || {
        let mut table = Table::new(["SERVICE", "STATE", "MEANING"]);
        for (service, state) in &states {
            let style = match state {
                ServiceState::Captured => Style::Good,
                ServiceState::NotRunning => Style::Plain,
                _ => Style::Bad,
            };
            table.push([service.as_str().into(), Cell::styled(state.as_str(), style), state.explanation().into()]);
        }
        list.table(&table)
    };
    list.print(&List { kind: "ComposeServiceList", items: &rows, unanswered: &[] }, shown, |row| row.service.clone())?;
    // Plain commands would start the services without their sidecars again.
    let file = if is_used(folder) { "" } else { " --file compose.mesh.yaml" };
    let mut exit = Exit::Ok;
    let mut wrong = |message: &str| {
        output::note(&format!("WARNING: {message}"));
        exit = Exit::Failure;
    };
    for (service, state) in &states {
        match state {
            ServiceState::Captured => {}
            ServiceState::NotRunning => output::note(&format!(
                "{service} does not run. Unless it has ended by itself: `docker-compose{file} up --detach`"
            )),
            ServiceState::Bypassed => wrong(&format!(
                "{service} has no protection: it runs beside its sidecar, not behind it. Run {} in {}",
                mending(*state, service, file),
                folder.display()
            )),
            ServiceState::NotStarted | ServiceState::Orphaned | ServiceState::NoProxy => {
                wrong(&format!("{service}: {}. Run {}", state.explanation(), mending(*state, service, file)));
            }
        }
    }
    if let Some(project) = project.as_ref().filter(|project| !project.is_current()) {
        wrong(&format!(
            "{} was changed since {MESH_FILE} was made from it: run `portcullis compose add --apply`",
            project.original.name
        ));
    }
    if !is_used(folder) {
        let mend = match &project {
            Some(_) => "Run `portcullis compose add --write`".to_owned(),
            None => {
                format!("It was made by redirection: write COMPOSE_FILE={MESH_FILE} into .env, or make it with --write")
            }
        };
        wrong(&format!(
            "COMPOSE_FILE in .env does not name {MESH_FILE}: plain docker-compose commands would start the services without their \
             sidecars. {mend}"
        ));
    }
    Ok(exit)
}
