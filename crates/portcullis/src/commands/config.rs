//! `portcullis config check`: is the proxy's own file right, before it is started with it? And where that file is.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_config::Settings;
use portcullis_yaml::{MAX_FILE_BYTES, Problem};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::output;

/// Work with the proxy's own configuration
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis config check /etc/portcullis/config.yaml
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

/// Check a configuration file and list every mistake in it: 0 right, 78 wrong
///
/// The files that it names are not looked at: policies are checked by `validate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis config check cart.yaml")]
struct Check {
    /// The file [default: the text in $PORTCULLIS_CONFIG, or else /etc/portcullis/config.yaml]
    file: Option<PathBuf>,
}

/// Print the JSON Schema of the configuration, by which editors complete and check it
///
/// An editor with a YAML language server takes it from the first line of the file:
/// `# yaml-language-server: $schema=portcullis.schema.json`
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis config schema > portcullis.schema.json")]
struct Schema {}

/// A test compares it with what the reader knows.
const SCHEMA: &str = include_str!("../../../../config/portcullis.schema.json");

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Check(Check { file }) => check(file.as_deref()),
        Command::Schema(Schema {}) => Ok(output::text(SCHEMA).map(|()| Exit::Ok)?),
    }
}

fn check(file: Option<&Path>) -> Outcome {
    let bad = |error| Failure::new(Exit::BadConfig, error);
    let place = Place::required(file).map_err(|error| Failure::new(Exit::Usage, error))?;
    let text = place.read().map_err(bad)?;
    match place.parse(&text) {
        Ok(_settings) => {
            output::text(&format!("{place}: ok\n"))?;
            Ok(Exit::Ok)
        }
        Err(problems) => {
            output::text(&place.lines(&problems))?;
            Ok(Exit::BadConfig)
        }
    }
}

/// The variable that may hold the text of a configuration: a compose file then needs no other.
const VARIABLE: &str = "PORTCULLIS_CONFIG";
/// Where a configuration is looked for last.
const DEFAULT: &str = "/etc/portcullis/config.yaml";

/// Where a configuration is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    File(PathBuf),
    Variable,
}

impl Place {
    /// The file that was named, else the variable, else the default file if it is there.
    pub(crate) fn find(named: Option<&Path>) -> Option<Self> {
        if let Some(file) = named {
            return Some(Self::File(file.to_owned()));
        }
        if env::var_os(VARIABLE).is_some_and(|text| !text.is_empty()) {
            return Some(Self::Variable);
        }
        Path::new(DEFAULT).exists().then(|| Self::File(DEFAULT.into()))
    }

    /// As [`find`](Self::find), where there must be one.
    pub(crate) fn required(named: Option<&Path>) -> anyhow::Result<Self> {
        Self::find(named).with_context(|| {
            format!("there is no configuration: name a file, put its text into ${VARIABLE}, or a file at {DEFAULT}")
        })
    }

    /// The text. At most one byte more than is allowed: enough for the reader to say that it is too large.
    pub(crate) fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(file) => read(file),
            Self::Variable => Ok(env::var_os(VARIABLE).unwrap_or_default().into_encoded_bytes()),
        }
    }

    /// What the text means: the settings, or every mistake in it. Paths in it are relative to the folder of the file, or to
    /// the working directory.
    pub(crate) fn parse(&self, text: &[u8]) -> Result<Settings, Vec<Problem>> {
        portcullis_config::read(text, self.file().and_then(Path::parent).unwrap_or_else(|| Path::new("")))
    }

    /// One line for each mistake, `file:line:column: ...`.
    pub(crate) fn lines(&self, problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{self}:{problem}\n")).collect()
    }

    /// `None` for the variable.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::Variable => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.display().fmt(f),
            Self::Variable => f.write_str(VARIABLE),
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || file.display().to_string();
    let opened = File::open(file).with_context(named)?;
    anyhow::ensure!(opened.metadata().with_context(named)?.is_file(), "{}: not a regular file", file.display());
    let mut text = Vec::new();
    opened.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text).with_context(named)?;
    Ok(text)
}
