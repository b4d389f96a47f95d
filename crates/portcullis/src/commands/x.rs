//! `portcullis x ...` and `portcullis authn tls-check`: commands under the names that Istio gave them.

use super::{auth, describe};
use crate::exit::Outcome;

/// Commands under the names of `istioctl x`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis x describe service cart.shop
  portcullis x auth -n shop cart
  portcullis x authz check cart.shop")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Describe(Box<describe::Args>),
    Auth(Box<auth::Args>),
    Authz(Box<AuthzArgs>),
}

/// The same as auth, as `istioctl x authz check`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis x authz check cart.shop")]
pub(crate) struct AuthzArgs {
    #[command(subcommand)]
    command: Authz,
}

#[derive(Debug, clap::Subcommand)]
enum Authz {
    Check(Box<auth::Args>),
}

/// The same as auth, as `istioctl authn tls-check`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis authn tls-check cart.shop")]
pub(crate) struct AuthnArgs {
    #[command(subcommand)]
    command: Authn,
}

#[derive(Debug, clap::Subcommand)]
enum Authn {
    TlsCheck(Box<auth::Args>),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Describe(args) => describe::run(args),
        Command::Auth(args) => auth::run(args),
        Command::Authz(args) => {
            let Authz::Check(args) = &args.command;
            auth::run(args)
        }
    }
}

pub(crate) fn authn(args: &AuthnArgs) -> Outcome {
    let Authn::TlsCheck(args) = &args.command;
    auth::run(args)
}
