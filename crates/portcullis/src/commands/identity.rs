//! `portcullis identity check`: is this a SPIFFE ID, and if not, which rule does it break?

use std::ffi::OsString;
use std::io::{self, BufRead as _, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use portcullis_identity::SpiffeId;
use serde::Serialize;

use crate::exit::{Exit, Outcome};
use crate::output::{self, Format};

/// Far longer than a SPIFFE ID may be.
const MAX_LINE: u64 = 64 * 1024;

/// Check SPIFFE IDs
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
  portcullis identity check -o json 'spiffe://Cluster.local/x'
  portcullis identity check - < id.txt")]
struct Check {
    /// The ID; `-` is the first line of standard input
    #[arg(allow_hyphen_values = true)]
    id: OsString,
    /// Output format
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
    // Bytes, not text: an ID that is not UTF-8 is an invalid ID, not a wrong command line.
    let id = if args.id == "-" { first_line()? } else { args.id.as_bytes().to_vec() };
    let answer = match SpiffeId::parse_bytes(&id) {
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

/// A line of standard input without its end. Longer IDs than fit are not valid anyway.
fn first_line() -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::stdin().lock().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") {
        line.pop();
    }
    Ok(line)
}
