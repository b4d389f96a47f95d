//! `portcullis check`: is the mesh well, and what to do where it is not, in linkerd's form.

mod ask;
mod configuration;
mod engine;
mod text;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::ValueHint;
use portcullis_api::Timestamp;
use portcullis_report::check::{Check, CheckResult, State, evaluate, evaluate_configuration, overall};
use portcullis_tls::Clock;

use super::proxies::ProxiesArgs;
use super::selection::SelectionArgs;
use super::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{self, List, ListArgs, MissingAnswer};

/// From the end of one round of questions to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Check whether the mesh is well: proxies, capture, certificates, policies, services; each problem with its remedy
///
/// One line for each check: √ as it should be, ‼ worth a look, × wrong, ? could not be checked, - nothing of that kind. Below it what, which
/// proxies, why, and what to do. -o wide also shows what passed. With -c, a configuration is checked before a proxy is started with it, in
/// the network namespace of the command.
///
/// 0: nothing is wrong (warnings, unless --fail-on-warning). 1: something is. 82: only that a certificate has expired, or is about to. 69: only
/// that a proxy does not answer. 81: only that something could not be checked.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis check
  portcullis check --admin cart:15000 --admin web:15000 -o wide
  portcullis check --docker --wait 2m
  portcullis check --proxies proxies.yaml -n shop -o json
  portcullis check -c cart.yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    selection: SelectionArgs,
    /// Check this configuration, its policies and certificate files; proxies are asked only if the command line names some
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Repeat until nothing is wrong, for so long, such as 60s or 5m
    #[arg(long, value_name = "DURATION", value_parser = values::timeout)]
    wait: Option<Duration>,
    /// A warning fails, too: exit code 1
    #[arg(long)]
    fail_on_warning: bool,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    proxies: ProxiesArgs,
}

/// What one round came to.
struct Round {
    checks: Vec<Check>,
    unanswered: Vec<MissingAnswer>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let is_offline = args.config.is_some() && !args.proxies.is_named();
    if is_offline && (args.selection.target.is_some() || args.selection.namespace.namespace.is_some()) {
        let message =
            "TARGET and -n choose among running proxies: name them with --admin, --proxies or --docker as well as -c";
        return Err(Failure::message(Exit::Usage, message));
    }
    let end = args.wait.map(|wait| Instant::now() + wait);
    let mut told = String::new();
    let round = loop {
        let round = round(args);
        let is_over = match &round {
            Ok(round) => exit(overall(&round.checks), args.fail_on_warning) == Exit::Ok,
            // A wrong command line or list does not become right.
            Err(failure) => failure.exit != Exit::Unreachable,
        };
        if is_over || end.is_none_or(|end| Instant::now() + PAUSE >= end) {
            break round?;
        }
        let pending = match round {
            Ok(round) => pending(&round.checks),
            Err(failure) => format!("{:#}", failure.error),
        };
        if pending != told {
            output::note(&format!("waiting: {pending}"));
            told = pending;
        }
        std::thread::sleep(PAUSE);
    };
    let Round { checks, unanswered } = &round;
    let list = List { kind: "CheckList", items: checks, unanswered };
    let shown = || text::render(checks, args.list.is_wide(), args.list.is_coloured());
    args.list.print(&list, shown, |check| format!("check/{}", check.name))?;
    Ok(exit(overall(checks), args.fail_on_warning))
}

fn round(args: &Args) -> Result<Round, Failure> {
    let now = Timestamp::from_unix(Clock::system().now_unix());
    let mut round = Round { checks: Vec::new(), unanswered: Vec::new() };
    if let Some(config) = &args.config {
        round.checks = evaluate_configuration(&configuration::read(config)?, now);
    }
    if args.config.is_none() || args.proxies.is_named() {
        let asked = ask::ask(&args.proxies, &args.selection, now)?;
        round.checks.extend(evaluate(&asked.facts));
        round.unanswered = asked.unanswered;
    }
    Ok(round)
}

/// What is not as it should be, in one line.
fn pending(checks: &[Check]) -> String {
    let names = checks.iter().filter(|check| check.state >= State::Unchecked).map(|check| check.name);
    names.collect::<Vec<_>>().join(", ")
}

const fn exit(overall: CheckResult, fails_on_warning: bool) -> Exit {
    match overall {
        CheckResult::Well => Exit::Ok,
        CheckResult::Warnings if fails_on_warning => Exit::Failure,
        CheckResult::Warnings => Exit::Ok,
        CheckResult::Unchecked => Exit::TooLittleObserved,
        CheckResult::Unanswered => Exit::Unreachable,
        CheckResult::Expired => Exit::Expired,
        CheckResult::Failed => Exit::Failure,
    }
}
