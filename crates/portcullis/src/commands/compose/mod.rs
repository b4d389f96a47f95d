//! `portcullis compose`: sidecars for the services of a compose file.

mod add;
mod client;
mod project;
mod remove;
pub(super) mod status;

use crate::exit::Outcome;

/// Add sidecars to the services of a compose file
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis compose add web cart --apply
  portcullis compose status
  portcullis compose remove cart --apply
  portcullis compose add web cart -f compose.yaml > compose.mesh.yaml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(add::Args),
    Remove(remove::Args),
    Status(status::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Add(args) => add::run(args),
        Command::Remove(args) => remove::run(args),
        Command::Status(args) => status::run(args),
    }
}
