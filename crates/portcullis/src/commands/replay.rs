//! `portcullis replay`: what other policies would have done with the connections that were observed.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_policy::{Evaluation, MeshSettings, PolicySet};
use portcullis_report::replay::{Options, Replay};

use super::observed::{Observed, ObservedArgs, exit_of};
use super::subject::{MeshArgs, load_set};
use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

/// Try policies against the observed connections before they are applied, and show who would lose or gain access: 0 nobody loses, 1
/// somebody
///
/// PeerAuthentication and AuthorizationPolicy of -f replace those of the same kind, namespace and name in the policies in force, and are
/// added otherwise, as kubectl apply does; with --instead they are the whole set. The policies in force are those of --policies, else
/// those of the configuration. Without either, -f is the whole set, and is compared with what was let through.
///
/// Where a rule compares what was not recorded, the row says NOT DECIDED and which rule. 69: a sidecar did not answer. 81: something is
/// not decided, or too little was observed. A known loss comes first.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis replay -f strict.yaml --policies policies --docker
  portcullis replay -f next --instead --policies policies --proxies proxies.txt --since 7d
  portcullis replay -c cart.yaml -f strict.yaml --admin 127.0.0.1:15000 -o markdown
  portcullis replay -f strict.yaml --from cart.json web.json -o sarif > replay.sarif")]
pub(crate) struct Args {
    /// New policies: files, or folders with every .yaml, .yml and .json below them; `-` is standard input
    #[arg(short, long = "file", value_name = "PATH", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    /// Take the new policies as the whole set, instead of adding them to those in force
    #[arg(long)]
    instead: bool,
    /// The policies in force, likewise [default: `policies` of the configuration]
    #[arg(long, value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    policies: Vec<PathBuf>,
    /// A proxy's configuration, which names the policies in force; `-` is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// Decide as if policies with the annotation istio.io/dry-run were enforced
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    mesh: MeshArgs,
    #[command(flatten)]
    observed: ObservedArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let inputs = args.file.iter().chain(&args.policies).chain(&args.config);
    let on_stdin = inputs.filter(|path| files::is_stdin(path)).count();
    if on_stdin + usize::from(args.observed.reads_stdin()) > 1 {
        return Err(Failure::message(Exit::Usage, "standard input can be read once; name a file instead of one `-`"));
    }
    let InForce { set: in_force, mesh } = in_force(args)?;
    let new = load_set(&args.file)?;
    let new = match &in_force {
        Some(in_force) if !args.instead => in_force.clone().with_applied(&new),
        _ => new,
    };
    let Observed { answers, names, now } = args.observed.load()?;
    let options = Options {
        in_force: in_force.as_ref(),
        new: &new,
        mesh: &mesh,
        evaluation: if args.dry_run { Evaluation::DryRun } else { Evaluation::Enforced },
        window: args.observed.window(),
        min_observation: args.observed.min_observation(),
        namespace: args.observed.namespace(),
        now,
    };
    let report = Replay::new(&answers, &names, &options);
    output::text(&report.render(args.observed.form()).map_err(|error| Failure::new(Exit::Failure, error))?)?;
    Ok(exit_of(report.status, Exit::Failure))
}

/// The policies in force, if they are known, and settings for sidecars that do not tell theirs.
struct InForce {
    set: Option<PolicySet>,
    mesh: MeshSettings,
}

fn in_force(args: &Args) -> Result<InForce, Failure> {
    let source = match &args.config {
        None if !args.policies.is_empty() => None,
        named => ConfigSource::find(named.as_deref()),
    };
    let settings = source.map(|source| source.load()).transpose()?.map(|loaded| loaded.settings);
    let mesh = settings.as_ref().map_or_else(MeshSettings::default, |settings| settings.mesh.policy.clone());
    let configured = settings.and_then(|settings| settings.policies).into_iter().collect();
    let paths = if args.policies.is_empty() { configured } else { args.policies.clone() };
    let set = if paths.is_empty() { None } else { Some(load_set(&paths)?) };
    Ok(InForce { set, mesh: args.mesh.or(mesh) })
}
