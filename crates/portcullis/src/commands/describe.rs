//! `portcullis describe`: one workload or service in one screen, as `istioctl x describe`, with what was observed.

mod ask;
mod report;
mod text;

use self::report::Description;
use super::proxies::ProxiesArgs;
use super::selection::{Name, NamespaceArgs, SelectionArgs, TargetKind};
use crate::exit::{Exit, Outcome};
use crate::output::{List, ListArgs};

/// Show one workload or service: its effective PeerAuthentication, and what was observed on each port
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis describe service cart.shop
  portcullis describe workload cart -n shop -o json
  portcullis x describe service cart.shop")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(visible_alias = "svc")]
    Service(ServiceArgs),
    #[command(visible_aliases = ["pod", "deployment"])]
    Workload(WorkloadArgs),
}

/// Show a service: the workloads behind it, their effective PeerAuthentication, and what was observed on each port
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis describe service cart.shop
  portcullis describe svc cart.shop --proxies dns:cart-admin:15000")]
struct ServiceArgs {
    #[command(flatten)]
    what: WhatArgs,
}

/// Show a workload: its effective PeerAuthentication, and what was observed on each port
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis describe workload cart.shop
  portcullis describe pod cart -n shop --admin unix:/run/portcullis/admin.sock")]
struct WorkloadArgs {
    #[command(flatten)]
    what: WhatArgs,
}

#[derive(Debug, clap::Args)]
struct WhatArgs {
    /// NAME[.NAMESPACE]
    #[arg(value_name = "NAME", value_parser = Name::parse)]
    name: Name,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let (kind, args) = match &args.command {
        Command::Service(args) => (TargetKind::Service, &args.what),
        Command::Workload(args) => (TargetKind::Workload, &args.what),
    };
    let answers = args.proxies.ask(ask::ask)?;
    let selection = SelectionArgs { target: Some(args.name.clone().of(kind)), namespace: args.namespace.clone() };
    let meant = selection.select(answers.answers, |answer| &answer.value.seen.proxy)?;
    let described = Description::of_workloads(&meant, &answers.containers);
    let list = List { kind: "WorkloadDescriptionList", items: &described, unanswered: &answers.unanswered };
    let text = || {
        described.iter().map(|one| text::text(one, kind, args.list)).collect::<Vec<_>>().join("--------------------\n")
    };
    args.list.print(&list, text, Description::name)?;
    Ok(Exit::Ok)
}
