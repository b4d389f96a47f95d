//! `portcullis diff`: what applying resources would change, line by line.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_manifest::{Prune, apply, to_yaml, unified};
use serde_json::Value;

use super::folder::{FolderArgs, refuse};
use super::guard::notice;
use super::input;
use crate::commands::values;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Show what `apply` would change in the policy folder, as a unified diff: 0 nothing, 1 something
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis diff -f strict.yaml --policies policies
  cat strict.yaml | portcullis diff -f - -c cart.yaml")]
pub(crate) struct Args {
    /// Files, or folders with every .yaml, .yml and .json below them; `-` is standard input
    #[arg(short, long = "file", visible_alias = "filename", value_name = "PATH", num_args = 1.., required = true, value_hint = ValueHint::AnyPath)]
    file: Vec<PathBuf>,
    #[command(flatten)]
    folder: FolderArgs,
    /// The namespace that every resource must have
    #[arg(short, long, value_name = "NS", value_parser = values::namespace)]
    namespace: Option<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let objects = input::objects(&args.file, args.namespace.as_deref())?;
    let folder = args.folder.read()?;
    if let Some(notice) = notice(&folder.path) {
        output::note(&format!("warning: {notice}"));
    }
    let plan = apply(&folder.shown_path(), &folder.files, &objects, &Prune::No).map_err(Failure::bad_input)?;
    refuse(&folder.check_with(&plan).errors)?;
    let mut text = String::new();
    for effect in &plan.effects {
        let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| Ok(String::new()), to_yaml);
        let (old, new) = (shown(&effect.before), shown(&effect.after));
        let (old, new) = (old.map_err(anyhow::Error::from)?, new.map_err(anyhow::Error::from)?);
        let hunks = unified(&old, &new);
        if !hunks.is_empty() {
            let version = effect.after.as_ref().and_then(|value| value.get("apiVersion")).and_then(Value::as_str);
            let version = version.unwrap_or_default().replace('/', ".");
            // As kubectl names its files.
            let name = format!("{version}.{}.{}.{}", effect.id.kind, effect.id.namespace, effect.id.name);
            text.push_str(&format!(
                "diff -u -N LIVE/{name} MERGED/{name}\n--- LIVE/{name}\n+++ MERGED/{name}\n{hunks}"
            ));
        }
    }
    output::text(&text)?;
    Ok(if text.is_empty() { Exit::Ok } else { Exit::Failure })
}
