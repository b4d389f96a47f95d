//! `portcullis apply`: resources into the policy folder.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::ValueHint;
use portcullis_manifest::{Plan, Prune, apply};

use super::commit::commit;
use super::effects::effects;
use super::folder::{Checked, Folder, FolderArgs, refuse};
use super::input;
use crate::commands::certs::lock;
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Write resources into the policy folder, after checking the whole set that results
///
/// A resource that is in a file already replaces its document there; the rest of the file, comments included, stays byte for byte. A new one
/// gets the file NAMESPACE.KIND.NAME.yaml. If anything in the resulting set is wrong, nothing is written: 65. What changes for connections is
/// told on standard error.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis apply -f strict.yaml --policies policies
  portcullis apply -f new/ -c cart.yaml --dry-run=server
  portcullis apply -f shop/ --policies policies --prune -n shop
  cat strict.yaml | portcullis apply -f - -c cart.yaml")]
pub(crate) struct Args {
    /// Files, or folders with every .yaml, .yml and .json below them; `-` is standard input
    #[arg(short, long = "file", visible_alias = "filename", value_name = "PATH", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    #[command(flatten)]
    folder: FolderArgs,
    /// The namespace that every resource must have; with --prune, where resources are removed
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
    /// Check and tell, but write nothing. Both kinds check the same
    #[arg(long, value_enum, value_name = "KIND", num_args = 0..=1, default_value = "none", default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// Remove the resources of the folder that are not among those applied; needs -n or --all
    #[arg(long)]
    prune: bool,
    /// With --prune: in every namespace
    #[arg(long, requires = "prune", conflicts_with = "namespace")]
    all: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum DryRun {
    None,
    Client,
    Server,
}

impl DryRun {
    /// What kubectl adds to its lines.
    pub(super) const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let prune = prune(args)?;
    let objects = input::objects(&args.file, args.namespace.as_deref())?;
    let folder = args.folder.read()?;
    // Another one may be writing; what it writes is read then.
    let _lock = lock(&folder.path)?;
    let folder = Folder { files: args.folder.read()?.files, ..folder };
    let plan = apply(&folder.shown_path(), &folder.files, &objects, &prune).map_err(Failure::bad_input)?;
    finish(&folder, &plan, args.dry_run, |effect| format!("{} {}", effect.id, effect.action.word()))
}

fn prune(args: &Args) -> Result<Prune, Failure> {
    match (args.prune, args.all, &args.namespace) {
        (false, ..) => Ok(Prune::No),
        (true, true, _) => Ok(Prune::Namespaces(None)),
        (true, false, Some(namespace)) => Ok(Prune::Namespaces(Some(BTreeSet::from([namespace.clone()])))),
        (true, false, None) => {
            Err(Failure::message(Exit::Usage, "--prune removes what is not applied: say where, with -n NS or --all"))
        }
    }
}

/// Checks what the plan leads to, writes it unless it is a dry run, and tells what happened.
pub(super) fn finish(
    folder: &Folder,
    plan: &Plan,
    dry_run: DryRun,
    line: impl Fn(&portcullis_manifest::Effect) -> String,
) -> Outcome {
    let Checked { set, errors, warnings } = folder.check_with(plan);
    refuse(&errors)?;
    let before = folder.check();
    if dry_run == DryRun::None {
        commit(plan)?;
    }
    let lines: String = plan.effects.iter().map(|effect| format!("{}{}\n", line(effect), dry_run.suffix())).collect();
    output::text(&lines)?;
    // Those that were there are no news.
    for warning in warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
        output::note(&format!("warning: {warning}"));
    }
    if before.errors.is_empty() {
        for line in effects(&before.set, &set, &folder.mesh) {
            output::note(&line);
        }
    } else {
        output::note("effective changes are not listed: the folder was not valid before");
    }
    Ok(Exit::Ok)
}
