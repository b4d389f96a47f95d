//! `portcullis identity check`: is this a SPIFFE ID, and if not, which rule does it break?

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use portcullis_identity::SpiffeId;
use serde::Serialize;

use super::Outcome;
use crate::exit::Exit;
use crate::output::{self, Format};

/// Work with SPIFFE IDs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis identity check spiffe://cluster.local/ns/shop/sa/cart")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(Check),
}

/// Check that a text is a SPIFFE ID, byte for byte: 0 yes, 65 no
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis identity check spiffe://cluster.local/ns/shop/sa/cart
  portcullis identity check -o json 'spiffe://Cluster.local/x'")]
struct Check {
    /// The ID
    #[arg(allow_hyphen_values = true)]
    id: OsString,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// `class` and `reason` are empty for an ID that is valid.
#[derive(Serialize)]
struct Answer {
    valid: bool,
    class: &'static str,
    reason: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let Command::Check(args) = &args.command;
    // Bytes, not text: an ID that is not UTF-8 is a wrong ID, not a wrong command line.
    let answer = match SpiffeId::parse_bytes(args.id.as_bytes()) {
        Ok(_id) => Answer { valid: true, class: "", reason: String::new() },
        Err(error) => Answer { valid: false, class: error.class(), reason: error.to_string() },
    };
    match args.output {
        Format::Json => output::json(&answer)?,
        Format::Text if answer.valid => output::text("valid\n")?,
        Format::Text => output::text(&format!("invalid: {} [{}]\n", answer.reason, answer.class))?,
    }
    Ok(if answer.valid { Exit::Ok } else { Exit::BadInput })
}
