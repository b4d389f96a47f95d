//! `portcullis demo`: the arguments; the show itself is in [`crate::demo`].

use super::Outcome;
use crate::demo;

/// Show what each mode lets through, with certificates and sidecars made for the occasion
///
/// Makes certificates, starts an app and real sidecar processes on loopback, and walks STRICT, PERMISSIVE and DISABLE by
/// editing the policy file while they run. In each mode it tries plaintext, mesh mTLS, a wrong CA, a wrong identity and
/// no certificate, and prints what became of it. Nothing stays behind.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis demo
  portcullis demo --check
  portcullis demo --keep")]
pub(crate) struct Args {
    /// Exit with 1 if any cell of the table is not as it must be
    #[arg(long)]
    check: bool,
    /// Keep the folder with certificates, configurations and logs
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    demo::run(demo::Options { check: args.check, keep: args.keep })
}
