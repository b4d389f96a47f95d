//! `portcullis proxy-config`: certificates and listeners of a running proxy, as `istioctl proxy-config` prints them.

mod blocks;
mod listener;
mod secret;

use crate::exit::Outcome;

/// Show certificates and listeners of running proxies, as istioctl proxy-config does
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy-config secret cart.shop
  portcullis pc listener cart.shop --port 8080 -o wide")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(visible_aliases = ["s", "secrets"])]
    Secret(secret::Args),
    #[command(visible_aliases = ["l", "listeners"])]
    Listener(listener::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Secret(args) => secret::run(args),
        Command::Listener(args) => listener::run(args),
    }
}
