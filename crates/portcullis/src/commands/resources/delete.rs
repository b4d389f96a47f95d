//! `portcullis delete`: resources out of the policy folder.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_manifest::{Id, PlanError, ResourceKind, delete};

use super::apply::{Change, DryRun};
use super::folder::{Folder, FolderArgs};
use super::guard::GuardArgs;
use super::input;
use crate::commands::certs::lock;
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Take resources out of the policy folder: by kind and name, or those of files
///
/// A file whose last document goes is removed. The resulting set is checked first, and --guard watches the sidecars, as with `apply`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis delete pa/default -n shop --policies policies
  portcullis delete peerauthentication default cart -n shop -c cart.yaml
  portcullis delete -f strict.yaml --policies policies --dry-run=client")]
pub(crate) struct Args {
    /// KIND/NAME, or KIND and names: pa, ap, se, we, dr or their long names
    #[arg(value_name = "KIND/NAME", required_unless_present = "file", conflicts_with = "file")]
    resources: Vec<String>,
    /// Files with the resources to delete, or folders; `-` is standard input
    #[arg(short, long = "file", visible_alias = "filename", value_name = "PATH", num_args = 1.., value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    #[command(flatten)]
    folder: FolderArgs,
    /// Namespace of the resources
    #[arg(short, long, value_name = "NS", value_parser = values::namespace, default_value = "default")]
    namespace: String,
    /// Check and tell, but write nothing
    #[arg(long, value_enum, value_name = "KIND", num_args = 0..=1, default_value = "none", default_missing_value = "client", require_equals = true)]
    dry_run: DryRun,
    /// Do not fail if a resource is not there
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    guard: GuardArgs,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut ids = if args.file.is_empty() {
        named(&args.resources, &args.namespace)?
    } else {
        input::objects(&args.file, None)?.into_iter().map(|object| object.id).collect()
    };
    let folder = args.folder.read()?;
    let lock = lock(&folder.path)?;
    let folder = Folder { files: args.folder.read()?.files, ..folder };
    if args.ignore_not_found {
        let there: Vec<Id> = folder
            .files
            .iter()
            .flat_map(|file| portcullis_manifest::read(&file.text))
            .map(|object| object.id)
            .collect();
        ids.retain(|id| there.contains(id));
    }
    match delete(&folder.shown_path(), &folder.files, &ids) {
        Ok(plan) => {
            let change =
                Change { folder: &folder, plan: &plan, dry_run: args.dry_run, guard: &args.guard, again: &args.folder };
            change.finish(lock, |effect| {
                let Id { kind, name, .. } = &effect.id;
                format!("{}.{} \"{name}\" {}", kind.singular(), kind.group(), effect.action.word())
            })
        }
        Err(error @ PlanError::NotFound(_)) => {
            output::note(&format!("Error from server (NotFound): {error}"));
            Ok(Exit::Failure)
        }
        Err(error) => Err(Failure::bad_input(error)),
    }
}

/// The kind by one of its names.
pub(super) fn kind(text: &str) -> Result<ResourceKind, Failure> {
    ResourceKind::named(text).ok_or_else(|| {
        // kubectl's words, and what there is.
        let message = format!(
            "the server doesn't have a resource type \"{}\"; there are pa, ap, se, we, dr and their long names",
            text.escape_debug()
        );
        Failure::message(Exit::Usage, message)
    })
}

/// `pa/a ap/b`, or `pa a b`.
fn named(resources: &[String], namespace: &str) -> Result<Vec<Id>, Failure> {
    let id = |kind: ResourceKind, name: &str| Id { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    if let Some((first, names)) = resources.split_first().filter(|(first, _)| !first.contains('/')) {
        if names.is_empty() {
            return Err(Failure::message(Exit::Usage, "resource(s) were provided, but no name was specified"));
        }
        let kind = kind(first)?;
        return Ok(names.iter().map(|name| id(kind, name)).collect());
    }
    let split = |text: &String| match text.split_once('/') {
        Some((known, name)) if !name.is_empty() => Ok(id(kind(known)?, name)),
        _ => Err(Failure::message(Exit::Usage, format!("{text:?} is not KIND/NAME"))),
    };
    resources.iter().map(split).collect()
}
