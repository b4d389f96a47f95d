//! `portcullis proxy`: the arguments of the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use portcullis_telemetry::log;

use crate::run;

/// Run the sidecar until SIGTERM; SIGHUP reloads policies and credentials
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy --config /etc/portcullis/config.yaml
  PORTCULLIS_LOG=debug portcullis proxy --config cart.yaml --log-format json")]
pub(crate) struct Args {
    /// The configuration; paths in it are relative to it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Form of the log lines on standard output
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level,...`; otherwise $PORTCULLIS_LOG, or `info`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// `key=value`
    #[default]
    Text,
    /// One object a line
    Json,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let format = match args.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let named = std::env::var("PORTCULLIS_LOG").ok().filter(|level| !level.is_empty());
    let level = args.log_level.clone().or(named).unwrap_or_else(|| "info".to_owned());
    run::run(&args.config, format, &level)
}
