//! `portcullis config check`: is the proxy's own file right, before it is started with it?

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use portcullis_config::{NamedPath, PathUse, named_paths};
use portcullis_yaml::Problem;

use crate::config_source::ConfigSource;
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Check the proxy's own configuration
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis config check -c /etc/portcullis/config.yaml
  portcullis config schema > portcullis.schema.json")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
    Schema(Schema),
}

/// Check a configuration and list every mistake in it: 0 valid, 78 wrong, 65 a file or folder that it names is missing
///
/// The policy folder and the files of certificate, key and trust bundles must exist, since the proxy does not start without
/// them. Files that the proxy waits for (those of identity.ca, the socket of identity.workloadApi, admin.tokenFile) are a
/// warning. If another container creates them all later, --no-paths checks the text alone. The content of the files is
/// not checked: `validate` checks policies.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis config check -c cart.yaml
  portcullis config check -c cart.yaml --no-paths     # before the certificates exist
  portcullis config check -c - < cart.yaml")]
struct Check {
    /// The file; `-` is standard input [default: the text in $PORTCULLIS_CONFIG, or else /etc/portcullis/config.yaml]
    #[arg(short, long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The file, as with -c
    #[arg(value_hint = ValueHint::FilePath, conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Do not check that the files and folders that it names exist
    #[arg(long)]
    no_paths: bool,
}

/// Print the JSON Schema of the configuration, for completion and checks in editors
///
/// An editor with a YAML language server takes it from the first line of the file:
/// `# yaml-language-server: $schema=portcullis.schema.json`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis config schema > portcullis.schema.json")]
struct Schema {}

/// A test compares it with the keys of the parser.
const SCHEMA: &str = include_str!("../../../../config/portcullis.schema.json");

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Schema(Schema {}) => Ok(output::text(SCHEMA).map(|()| Exit::Ok)?),
    }
}

fn check(args: &Check) -> Outcome {
    let source = ConfigSource::required(args.config.as_deref().or(args.file.as_deref()))?;
    let text = source.read().map_err(|error| Failure::new(Exit::BadConfig, error))?;
    let settings = match source.parse(&text) {
        Ok(settings) => settings,
        Err(problems) => {
            output::text(&source.lines(&problems))?;
            return Ok(Exit::BadConfig);
        }
    };
    let mut missing = Vec::new();
    let paths = if args.no_paths { Vec::new() } else { named_paths(&text, &settings) };
    for named in &paths {
        match (unusable(named), named.usage) {
            (None, _) => {}
            (Some(problem), PathUse::Later | PathUse::Written) => output::note(&format!("warning: {source}:{problem}")),
            (Some(problem), PathUse::File | PathUse::Folder) => missing.push(problem),
        }
    }
    if missing.is_empty() {
        output::text(&format!("{source}: ok\n"))?;
        return Ok(Exit::Ok);
    }
    output::text(&source.lines(&missing))?;
    output::note("note: if these are made later, such as by another container, check with --no-paths");
    Ok(Exit::BadInput)
}

/// Why the proxy could not use a path now.
pub(crate) fn unusable(named: &NamedPath) -> Option<Problem> {
    let shown = named.path.display();
    let found = match named.path.metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = match named.usage {
                PathUse::Folder => format!(
                    "there is no folder {shown}; create it (while it is empty, mesh.defaultMode holds), or correct the path"
                ),
                PathUse::File => {
                    format!(
                        "there is no file {shown}; put it there, or correct the path; the proxy does not start without it"
                    )
                }
                PathUse::Written => format!("there is no folder {shown} yet; the proxy makes it if it may"),
                PathUse::Later => format!("there is no file {shown} yet; the proxy waits for it"),
            };
            return Some(named.problem("missing-path", message));
        }
        Err(error) => return Some(named.problem("unreadable", format!("{shown}: {error}"))),
    };
    match named.usage {
        PathUse::Folder | PathUse::Written if !found.is_dir() => {
            Some(named.problem("not-a-folder", format!("{shown} is not a folder")))
        }
        PathUse::File if !found.is_file() => {
            Some(named.problem("not-regular-file", format!("{shown} is not a regular file")))
        }
        PathUse::Folder => opened(named, &named.path, |path| path.read_dir().map(drop)),
        PathUse::File => opened(named, &named.path, |path| File::open(path).map(drop)),
        PathUse::Later | PathUse::Written => None,
    }
}

fn opened(named: &NamedPath, path: &Path, open: impl FnOnce(&Path) -> io::Result<()>) -> Option<Problem> {
    let error = open(path).err()?;
    Some(named.problem("unreadable", format!("{}: {error}", path.display())))
}
