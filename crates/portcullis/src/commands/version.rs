//! `portcullis version`: version, commit and TLS library.

use serde::Serialize;

use crate::build_info::{COMMIT, VERSION};
use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// Print the version, the commit it was built from and the TLS library
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis version\n  portcullis version -o json")]
pub(crate) struct Args {
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    commit: &'static str,
    tls: &'static str,
    target: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    print(args.output)
}

/// Also what `--version` prints.
pub(crate) fn print(format: Format) -> Outcome {
    let version = Version {
        version: VERSION,
        commit: COMMIT,
        tls: "rustls, aws-lc-rs",
        target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
    };
    match format {
        Format::Json => output::json(&version)?,
        Format::Text => output::text(&format!(
            "portcullis {} (commit {}, {}, {})\n",
            version.version, version.commit, version.tls, version.target
        ))?,
    }
    Ok(Exit::Ok)
}
