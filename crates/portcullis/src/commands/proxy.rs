//! `portcullis proxy`: the arguments of the daemon.

use std::path::PathBuf;

use clap::ValueHint;
use portcullis_telemetry::{AccessLog, log};

use crate::daemon;
use crate::exit::Outcome;

/// Run the sidecar until SIGTERM; SIGHUP reloads policies and credentials,
/// and logs whether the configuration has changed, which requires a restart
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis proxy -c /etc/portcullis/config.yaml
  PORTCULLIS_LOG=debug portcullis proxy -c cart.yaml --log-format json
  portcullis proxy -c cart.yaml --access-log envoy")]
pub(crate) struct Args {
    /// The configuration; paths in it are relative to it. `-` is standard input [default: the text in $PORTCULLIS_CONFIG, with paths relative to the
    /// working directory, or else /etc/portcullis/config.yaml]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The socket on which the holder of this network namespace announces it (`hold --announce`): not ready until the holder has installed
    /// the redirect rules; exits with 1 once the holder is back with another namespace, to be started in that one
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    holder: Option<PathBuf>,
    /// Format of the log lines on standard output
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or `target=level,...`; otherwise $PORTCULLIS_LOG, or `info`
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Format of the access log, one line for each connection
    #[arg(long, value_enum, default_value_t)]
    access_log: AccessLogFormat,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum LogFormat {
    /// `key=value`
    #[default]
    Text,
    /// One object a line
    Json,
}

#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum AccessLogFormat {
    /// ztunnel's fields and ours, in the form of all log lines
    #[default]
    Ztunnel,
    /// Envoy's default text, as Istio's sidecars write it
    Envoy,
    /// The same fields as one JSON object a line
    EnvoyJson,
    /// None
    Off,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let format = match args.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let named = std::env::var("PORTCULLIS_LOG").ok().filter(|level| !level.is_empty());
    let level = args.log_level.clone().or(named).unwrap_or_else(|| "info".to_owned());
    let access = match args.access_log {
        AccessLogFormat::Ztunnel => AccessLog::Ztunnel,
        AccessLogFormat::Envoy => AccessLog::Envoy,
        AccessLogFormat::EnvoyJson => AccessLog::EnvoyJson,
        AccessLogFormat::Off => AccessLog::Off,
    };
    daemon::run(args.config.as_deref(), args.holder.clone(), &daemon::Logging { format, level, access })
}
