//! `portcullis readiness`: who breaks if workloads switch to STRICT.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_policy::PolicySet;
use portcullis_report::NoSidecar;
use portcullis_report::readiness::{Options, Readiness};

use super::observed::{Observed, ObservedArgs, exit_of};
use super::subject::load_set;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

/// Show who breaks if workloads switch to STRICT, from what their sidecars observed: 0 nobody, 80 somebody
///
/// One row for each port of each workload: the share of mTLS, the clients without it by name, a verdict, and how sure it is. Below the
/// table, for each client, what to do. 69: a sidecar did not answer. 81: too little was observed to say. A known no comes first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis readiness --admin 127.0.0.1:15000
  portcullis readiness --docker -n shop --window 7d
  portcullis readiness --proxies proxies.txt -o markdown >> report.md
  portcullis readiness --proxies dns:mesh-admin:15000 --min-observation 7d -o junit > readiness.xml
  curl -s http://127.0.0.1:15000/observations > cart.json
  portcullis readiness --from cart.json web.json --window 12h -o wide")]
pub(crate) struct Args {
    /// The mode to switch to
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    target: Target,
    /// Policy files or folders with a service directory, whose workloads without a sidecar are listed
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    #[command(flatten)]
    observed: ObservedArgs,
}

/// The mode to switch to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
enum Target {
    /// mTLS only.
    #[default]
    #[value(name = "STRICT")]
    Strict,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let on_stdin = args.policies.iter().filter(|path| files::is_stdin(path)).count();
    if on_stdin + usize::from(args.observed.reads_stdin()) > 1 {
        return Err(Failure::message(Exit::Usage, "standard input can be read once; name a file instead of one `-`"));
    }
    let directory = if args.policies.is_empty() { Vec::new() } else { without_sidecar(&load_set(&args.policies)?) };
    let Observed { answers, names, now } = args.observed.load()?;
    let options = Options {
        window: args.observed.window(),
        min_observation: args.observed.min_observation(),
        namespace: args.observed.namespace().map(str::to_owned),
        now,
    };
    let report = match args.target {
        Target::Strict => Readiness::new(&answers, &names, &directory, &options),
    };
    output::text(&report.render(args.observed.form()).map_err(|error| Failure::new(Exit::Failure, error))?)?;
    Ok(exit_of(report.status, Exit::NotReady))
}

/// Workloads of the mesh that the service directory says have none.
fn without_sidecar(set: &PolicySet) -> Vec<NoSidecar> {
    let places = set.without_sidecar().map(|meta| NoSidecar {
        namespace: meta.namespace.to_string(),
        name: meta.name.to_string(),
        written: format!("{}:{}", meta.file, meta.line),
    });
    places.collect()
}
