//! `portcullis apply`: resources into the policy folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use clap::ValueHint;
use portcullis_manifest::{Effect, Plan, Prune, apply};

use super::commit::commit;
use super::effects::effects;
use super::folder::{Checked, Folder, FolderArgs, refuse};
use super::foresee::Foresee;
use super::guard::{EndBy, GuardArgs, Guarded, Prepare, end, refuse_if_open};
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
///
/// With --guard the sidecars are watched after the change. Connections that they refuse now, and that the former policies would have let
/// through, are told at once; more than --max-denied of them, or a sidecar that cannot be asked, and the files are put back byte for byte as
/// they were: 84. SIGINT, SIGTERM and SIGHUP take the change back as well. If the command itself is killed, the change stays open:
/// --take-back, --resume or --accept ends it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis apply -f strict.yaml --policies policies
  portcullis apply -f new/ -c cart.yaml --dry-run=server
  portcullis apply -f shop/ --policies policies --prune -n shop
  cat strict.yaml | portcullis apply -f - -c cart.yaml
  portcullis apply -f strict.yaml --policies policies --guard 10m --max-denied 0 --proxies proxies.txt
  portcullis apply --take-back --policies policies")]
pub(crate) struct Args {
    /// Files, or folders with every .yaml, .yml and .json below them; `-` is standard input
    #[arg(short, long = "file", visible_alias = "filename", value_name = "PATH", num_args = 1.., required_unless_present = "end", conflicts_with = "end", value_hint = ValueHint::AnyPath)]
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
    /// Take back a guarded change whose command was killed
    #[arg(long, group = "end")]
    take_back: bool,
    /// Watch it again, for its whole time
    #[arg(long, group = "end")]
    resume: bool,
    /// Keep it
    #[arg(long, group = "end")]
    accept: bool,
    #[command(flatten)]
    guard: GuardArgs,
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
    for (is_asked, by) in
        [(args.take_back, EndBy::TakeBack), (args.resume, EndBy::Resume), (args.accept, EndBy::Accept)]
    {
        if is_asked {
            return end(&args.folder, &args.guard, by);
        }
    }
    let prune = prune(args)?;
    let objects = input::objects(&args.file, args.namespace.as_deref())?;
    let folder = args.folder.read()?;
    // Another one may be writing; what it writes is read then.
    let lock = lock(&folder.path)?;
    let folder = Folder { files: args.folder.read()?.files, ..folder };
    let plan = apply(&folder.shown_path(), &folder.files, &objects, &prune).map_err(Failure::bad_input)?;
    let change =
        Change { folder: &folder, plan: &plan, dry_run: args.dry_run, guard: &args.guard, again: &args.folder };
    change.finish(lock, |effect| format!("{} {}", effect.id, effect.action.word()))
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

/// A change that is ready to be made.
pub(super) struct Change<'a> {
    pub(super) folder: &'a Folder,
    pub(super) plan: &'a Plan,
    pub(super) dry_run: DryRun,
    pub(super) guard: &'a GuardArgs,
    /// How the folder is read again.
    pub(super) again: &'a FolderArgs,
}

impl Change<'_> {
    /// Checks what the plan leads to, writes it unless it is a dry run, and tells what happened. With a guard, watches it then.
    pub(super) fn finish(&self, lock: File, line: impl Fn(&Effect) -> String) -> Outcome {
        let Self { folder, plan, dry_run, guard, again } = *self;
        let Checked { set, errors, warnings } = folder.check_with(plan);
        refuse(&errors)?;
        let before = folder.check();
        let foresee = Foresee {
            before: &before.set,
            after: &set,
            mesh: &folder.mesh,
            plan,
            proxies: guard.proxies(),
            is_guarded: guard.is_on(),
        };
        // Before the change: afterwards its ports are STRICT.
        let foreseen = foresee.warnings();
        let mut guarded = None;
        if dry_run == DryRun::None {
            refuse_if_open(&folder.path)?;
            if guard.is_on() {
                // There would be nothing to go back to.
                refuse(&before.errors)?;
            }
            let begin = Prepare { args: guard, folder_args: again, folder, plan, before: &before.set, after: &set };
            guarded = Guarded::prepare(&begin)?;
            if let Err(failure) = commit(plan) {
                guarded.into_iter().for_each(Guarded::give_up);
                return Err(failure);
            }
        }
        let lines: String =
            plan.effects.iter().map(|effect| format!("{}{}\n", line(effect), dry_run.suffix())).collect();
        let told = output::text(&lines);
        // Those that were there are no news.
        for warning in warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
            output::note(&format!("warning: {warning}"));
        }
        for warning in &foreseen {
            output::note(&format!("warning: {warning}"));
        }
        if before.errors.is_empty() {
            for line in effects(&before.set, &set, &folder.mesh) {
                output::note(&line);
            }
        } else {
            output::note("effective changes are not listed: the folder was not valid before");
        }
        drop(lock);
        match guarded {
            // It is watched whoever reads.
            Some(guarded) => guarded.watch(),
            None => told.map(|()| Exit::Ok).map_err(Failure::from),
        }
    }
}
