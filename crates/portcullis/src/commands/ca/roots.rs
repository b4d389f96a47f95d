//! `portcullis ca roots`: the roots that other domains need to trust a CA's workloads.

use std::path::PathBuf;

use super::folder::unanswered;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::output::{self, Format};

/// Print the roots that the CA on a folder hands out now, in PEM, for other domains that trust its workloads
///
/// While the root is being changed, these are the old and the new one, or the new one alone: what a trust domain that federates
/// with this one, or a proxy that reads files, needs after each step.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca roots --dir ca > cluster.local.pem
  portcullis ca roots --dir ca -o json")]
pub(super) struct Args {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(args: &Args) -> Outcome {
    let published = portcullis_ca_server::published(&args.dir).map_err(unanswered(&args.dir))?;
    match args.output {
        Format::Json => output::json(&published)?,
        Format::Text => output::text(&format!("{}\n", published.roots.trim_end()))?,
    }
    Ok(Exit::Ok)
}
