//! `portcullis auth`: every policy that applies to a workload, in the order in which they are evaluated.

mod offline;
mod running;

use super::proxies::ProxiesArgs;
use super::selection::{Name, NamespaceArgs, SelectionArgs};
use super::subject::SubjectArgs;
use crate::exit::Outcome;
use crate::output::ListArgs;

/// List every policy that applies to a workload: the mode of each port, then DENY, ALLOW and AUDIT policies
///
/// Of files (-c, or -f with -n) it lists also those that do not apply, with the reason. Of running proxies (TARGET, --admin, --proxies or
/// --docker) it tells whether clients and policies fit, as istioctl's tls-check did: exit code 0 only if all are OK.
///
/// STATUS: OK; CONFLICT, clients are refused that do not speak what the port demands; PLAINTEXT-SEEN, the port lets plaintext through and some
/// came; SHADOWED, another policy of the same scope is older, so one has no effect. CLIENT: what clients sent since the proxy observes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis auth -c cart.yaml
  portcullis auth -f policies -n shop -l app=cart
  portcullis auth -f policies -n shop -l app=cart -o json
  portcullis auth -n shop cart
  portcullis x auth cart.shop --proxies proxies.yaml")]
pub(crate) struct Args {
    /// The workload of a running proxy: [TYPE/]NAME[.NAMESPACE]
    #[arg(value_name = "TARGET", value_parser = Name::parse, conflicts_with_all = ["config", "file", "labels"])]
    target: Option<Name>,
    #[command(flatten)]
    subject: SubjectArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if args.target.is_none() && !args.proxies.is_named() {
        return offline::run(&args.subject, args.list);
    }
    let namespace = NamespaceArgs::of(args.subject.namespace.clone());
    running::run(&SelectionArgs { target: args.target.clone(), namespace }, &args.proxies, args.list)
}
