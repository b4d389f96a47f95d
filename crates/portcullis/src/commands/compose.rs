//! `portcullis compose`: sidecars for the services of a compose file.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_compose::{ComposeFile, Error, Request};
use portcullis_identity::TrustDomain;

use super::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

/// Far larger than any compose file.
const MAX_BYTES: u64 = 8 << 20;

/// Add sidecars to the services of a compose file
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis compose add web cart -f compose.yaml > compose.mesh.yaml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(Add),
}

/// Give services of a compose file a sidecar: writes the whole file to standard output
///
/// The original is not touched. Each SERVICE keeps its name, image and volumes; four more are added: NAME-net holds
/// its network namespace (networks, ports and names go there), NAME-intercept installs the redirect rules and exits, NAME-proxy is
/// the sidecar, and NAME-ready exits when the sidecar is ready, which the app waits for. One certificate authority, ca with ca-init, serves all sidecars. The named services
/// reach each other over mTLS. Keep the output in the folder of the original, since paths in it are relative.
///
/// To add a service later, run it on the original with all of them, or on its own output: the CA in the file is kept and
/// registers the new service, and the directories of existing sidecars get it.
///
/// The folder of the policies must exist; while it is empty the mode is PERMISSIVE. After a reboot run `docker compose up -d`
/// again: services do not restart by themselves, since they would start without their redirect rules.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis compose add web cart -f compose.yaml > compose.mesh.yaml
  docker compose -f compose.mesh.yaml up -d
  portcullis compose add billing -f compose.mesh.yaml > compose.mesh2.yaml           # one more, later
  portcullis compose add web cart -f compose.yaml -n shop --policies ./mesh/policies > compose.mesh.yaml
  portcullis compose add web -f compose.yaml --override > compose.override.yaml      # Compose v2.24 or newer
  docker compose config | portcullis compose add web -f - > compose.mesh.yaml")]
struct Add {
    /// Services that get a sidecar
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// The compose file; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Namespace of the services, as policies name it
    #[arg(short, long, value_name = "NS", value_parser = values::namespace, default_value = "default")]
    namespace: String,
    /// Trust domain of the mesh
    #[arg(long, value_name = "TD", value_parser = values::trust_domain, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// Image of the sidecar
    #[arg(long, value_name = "IMAGE", default_value = "portcullis:latest")]
    image: String,
    /// Folder of the policy files, absolute or relative to the compose file
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = "./policies")]
    policies: String,
    /// Write only what differs, as an override file for Compose v2 (with !reset tags)
    #[arg(long = "override")]
    overlay: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Command::Add(args) = &args.command;
    let name = if files::is_stdin(&args.file) { files::STDIN.to_owned() } else { args.file.display().to_string() };
    let bad_input = |error: Error| {
        let lines: Vec<_> = error.lines().iter().map(|line| format!("{name}: {line}")).collect();
        Failure::message(Exit::BadInput, lines.join("\n"))
    };
    let file = ComposeFile::parse(&files::read_text(&args.file, MAX_BYTES)?).map_err(bad_input)?;
    let request = Request {
        services: args.services.clone(),
        namespace: args.namespace.clone(),
        trust_domain: args.trust_domain.clone(),
        image: args.image.clone(),
        policies: relative(&args.policies),
    };
    let plan = file.add_sidecars(&request).map_err(bad_input)?;
    for warning in plan.warnings() {
        output::note(&format!("warning: {name}: {warning}"));
    }
    let body = if args.overlay { plan.override_file() } else { plan.merged_file() };
    output::text(&format!("{}{body}", header(args, &name)))?;
    Ok(Exit::Ok)
}

fn header(args: &Add, name: &str) -> String {
    let use_it = if args.overlay {
        "Only what differs: for `docker compose -f ORIGINAL -f THIS`, Compose v2.24 or newer.".to_owned()
    } else {
        "Comments of the original are not kept, its anchors are written out.".to_owned()
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
