//! `portcullis ca status`: the status of a running CA.

use std::path::PathBuf;

use super::folder::unanswered;
use crate::commands::Outcome;
use crate::exit::Exit;
use crate::output::{self, Format};

/// Show the status of the CA that runs on a folder; exits with 0 if it can issue, 1 if it cannot, 69 if none runs
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca status --dir ca
  portcullis ca status --dir ca -o json")]
pub(super) struct Args {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(args: &Args) -> Outcome {
    let status = portcullis_ca_server::status_of(&args.dir).map_err(unanswered(&args.dir))?;
    match args.output {
        Format::Json => output::json(&status)?,
        Format::Text => {
            let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
            let rows = [
                (
                    "state",
                    status.pending.clone().map_or_else(|| "ready".to_owned(), |why| format!("cannot issue: {why}")),
                ),
                ("trust domain", status.trust_domain.clone()),
                ("signs until", status.signs_until.clone()),
                ("signs as root", if status.signs_as_root { "yes: the root's key is online" } else { "no" }.to_owned()),
                ("roots until", list(&status.roots_until)),
                ("extra roots", status.extra_roots.to_string()),
                ("registered", status.registered.to_string()),
                ("with certificate", status.certified.to_string()),
                ("on current bundles", status.on_current_bundles.to_string()),
                ("federated with", list(&status.federated)),
                ("bundle digest", status.bundle_digest.clone()),
                ("issued since start", status.issued.to_string()),
            ];
            let text: String = rows.iter().map(|(name, value)| format!("{name:<19} {value}\n")).collect();
            output::text(&text)?;
        }
    }
    Ok(if status.ready { Exit::Ok } else { Exit::Failure })
}
