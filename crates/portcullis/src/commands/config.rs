//! `portcullis config check`: is the proxy's own file right, before it is started with it?

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_settings::Settings;
use portcullis_yaml::{MAX_FILE_BYTES, Problem};

use super::Outcome;
use crate::exit::{Exit, Failure};
use crate::output;

/// Work with the proxy's own configuration
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis config check /etc/portcullis/config.yaml")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
}

/// Check a configuration file and list every mistake in it: 0 right, 78 wrong
///
/// The files that it names are not looked at: policies are checked by `validate`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis config check /etc/portcullis/config.yaml")]
struct Check {
    /// The file
    file: PathBuf,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Command::Check(Check { file }) = &args.command;
    let text = read(file).map_err(|error| Failure::new(Exit::BadConfig, error))?;
    match parse(file, &text) {
        Ok(_settings) => {
            output::text(&format!("{}: ok\n", file.display()))?;
            Ok(Exit::Ok)
        }
        Err(problems) => {
            output::text(&lines(file, &problems))?;
            Ok(Exit::BadConfig)
        }
    }
}

/// What the text of a configuration means: the settings, or every mistake in it. `file` is where it was read.
pub(crate) fn parse(file: &Path, text: &[u8]) -> Result<Settings, Vec<Problem>> {
    portcullis_settings::read(text, file.parent().unwrap_or_else(|| Path::new("")))
}

/// The text of a configuration. At most one byte more than is allowed: enough for the reader to say that it is too large.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let named = || file.display().to_string();
    let opened = File::open(file).with_context(named)?;
    anyhow::ensure!(opened.metadata().with_context(named)?.is_file(), "{}: not a regular file", file.display());
    let mut text = Vec::new();
    opened.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text).with_context(named)?;
    Ok(text)
}

/// One line for each mistake, `file:line:column: ...`.
pub(crate) fn lines(file: &Path, problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{}:{problem}\n", file.display())).collect()
}
