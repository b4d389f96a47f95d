//! `portcullis policy`: what a change of policies changes.

mod diff;

use clap::Subcommand;

use crate::exit::Outcome;

/// Compare sets of policies
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis policy diff policies next
  portcullis policy diff policies next -n shop -l app=cart -o json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Diff(Box<diff::Args>),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Diff(args) => diff::run(args),
    }
}
