//! `portcullis ca`: runs and manages a certificate authority.

pub(super) mod folder;
mod init;
mod istiod;
mod join_token;
mod log;
mod renew;
mod roots;
mod rotate_root;
mod run;
mod sandbox;
mod status;
mod token;

use super::Outcome;

/// Run a certificate authority
///
/// Workloads get certificates from it over the network, with a bootstrap token first and with their own certificate from
/// then on. It speaks the protocol of Istio's agents.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca init --dir ca --id spiffe://cluster.local/ns/shop/sa/cart
  portcullis ca run --dir ca --listen 0.0.0.0:15012 --name ca.example.org
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/shop/sa/cart
  portcullis ca join-token create --dir ca --id spiffe://cluster.local/ns/shop/sa/db")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::Args),
    Run(run::Args),
    Token(token::Args),
    JoinToken(join_token::Args),
    Status(status::Args),
    Log(log::Args),
    Renew(renew::Args),
    Roots(roots::Args),
    RotateRoot(rotate_root::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Init(args) => init::run(args),
        Command::Run(args) => run::run(args),
        Command::Token(args) => token::run(args),
        Command::JoinToken(args) => join_token::run(args),
        Command::Status(args) => status::run(args),
        Command::Log(args) => log::run(args),
        Command::Renew(args) => renew::run(args),
        Command::Roots(args) => roots::run(args),
        Command::RotateRoot(args) => rotate_root::run(args),
    }
}
