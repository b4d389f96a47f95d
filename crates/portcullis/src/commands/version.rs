//! `portcullis version`: what is running here.

use serde::Serialize;

use super::Outcome;
use crate::exit::Exit;
use crate::output::{self, Format};

/// Say the version, the commit it was built from and the cryptography
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis version\n  portcullis version -o json")]
pub(crate) struct Args {
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The commit this was built from. A source archive has none; whoever builds a release sets this.
pub(crate) const COMMIT: &str = match option_env!("PORTCULLIS_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

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
        version: env!("CARGO_PKG_VERSION"),
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
