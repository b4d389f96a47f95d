//! `portcullis compose remove`: takes the sidecars of services out again.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_compose::{ComposeFile, Record, sidecar_services};

use super::client::Client;
use super::project::{MESH_FILE, Project, bad_input, written_header};
use super::status;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, ListArgs};

/// Take the sidecar of services out of compose.mesh.yaml again
///
/// compose.mesh.yaml is made again from the original, without them. From then on they send and receive plaintext: services that are
/// STRICT refuse them. With the last one compose.mesh.yaml goes, and the line in .env. Volumes stay: that of the certificate
/// authority, portcullis-authority, keeps its root for the next time.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis compose remove cart --apply
  portcullis compose remove cart             # only files; says what to run
  portcullis compose remove --all --apply    # as it was before")]
pub(super) struct Args {
    /// Services whose sidecar goes
    #[arg(value_name = "SERVICE", required_unless_present = "all")]
    services: Vec<String>,
    /// Every service
    #[arg(long, conflicts_with = "services")]
    all: bool,
    /// The original compose file, or compose.mesh.yaml [default: that of this folder]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Remove the containers of the sidecars, start the services without them, and show how the others run
    #[arg(long)]
    apply: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let (project, record) = Project::existing(args.file.as_deref())?;
    let present = &record.request.services;
    let gone = if args.all { present.clone() } else { args.services.clone() };
    let absent: Vec<&str> = gone.iter().filter(|service| !present.contains(service)).map(String::as_str).collect();
    if !absent.is_empty() {
        let message = format!(
            "{}: {MESH_FILE} gives it no sidecar; those with one are: {}",
            absent.join(", "),
            present.join(", ")
        );
        return Err(Failure::message(Exit::BadInput, message));
    }
    let mut request = record.request.clone();
    request.services.retain(|service| !gone.contains(service));
    let is_last = request.services.is_empty();
    let refused = |error| bad_input(&project.original.shown, &error);
    let original = ComposeFile::parse(&project.original.text).map_err(refused)?;
    let text = if is_last {
        None
    } else {
        let plan = original.add_sidecars(&request).map_err(refused)?;
        let record = Record { digest: project.original.digest(), request: request.clone(), ..record.clone() };
        Some(format!("{}{}", written_header(&record.original), plan.recorded_file(&record)))
    };
    let client = if args.apply { Some(Client::find(&project.folder)?) } else { None };
    if let Some(client) = &client {
        // While the file still has them: afterwards Compose would not know whose they are, and they hold the ports.
        client.run(&["stop"], &gone)?;
        let mut parts: Vec<String> = gone.iter().flat_map(|service| sidecar_services(service)).collect();
        if is_last {
            // Compose refuses the name of a service that the file does not have.
            let of_authority: &[&str] = if record.request.joined.is_some() { &["ca-join"] } else { &["ca", "ca-init"] };
            parts.extend(of_authority.iter().map(|part| (*part).to_owned()).filter(|part| !original.has_service(part)));
        }
        client.run(&["rm", "--stop", "--force"], &parts)?;
    }
    match text {
        Some(text) => project.write(&text, &request.policies)?,
        None => project.erase()?,
    }
    let Some(client) = client else {
        output::note(
            "Written. The sidecars that are left over hold the ports, so they go first. Run in this folder:\n  docker-compose up --detach --remove-orphans",
        );
        return Ok(Exit::Ok);
    };
    client.run(&["up", "--detach"], &[])?;
    if is_last {
        output::note("every sidecar is removed; their volumes stay, `docker volume ls` has them");
        return Ok(Exit::Ok);
    }
    let engine = status::Engine::default();
    status::restart_orphans(&client, &engine, &project.folder, &request.services)?;
    status::report(&project.folder, &engine, ListArgs::default())
}
