//! `portcullis ca token`: issues the token for a workload's first certificate.

use std::path::PathBuf;
use std::time::Duration;

use super::folder::refuse_certs_folder;
use crate::commands::Outcome;
use crate::commands::values::{parse_id, ttl};
use crate::exit::{Exit, Failure};
use crate::output;

/// Make a bootstrap token for a registered identity, and print it
///
/// It is a secret until it was used or has expired. It is valid for one certificate, unless --reusable is set.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/shop/sa/cart > cart/token
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/shop/sa/cart --ttl 10m
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/istio-system/sa/ztunnel --no-newline > ztunnel/istio-token
  portcullis ca token --dir ca --id spiffe://cluster.local/ns/shop/sa/batch --reusable")]
pub(super) struct Args {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// SPIFFE ID of the workload
    #[arg(long, value_name = "SPIFFE_ID")]
    id: String,
    /// How long the token is valid, such as 10m, 1h or 7d
    #[arg(long, value_parser = ttl, default_value = "1h")]
    ttl: Duration,
    /// Valid for any number of certificates until it expires
    #[arg(long)]
    reusable: bool,
    /// Print no newline behind the token: some clients send the whole file, and a newline makes it invalid
    #[arg(long)]
    no_newline: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let id = parse_id(&args.id)?;
    refuse_certs_folder(&args.dir, Exit::BadInput)?;
    let token = portcullis_ca_server::mint(&args.dir, &id, args.ttl, args.reusable);
    let token = token.map_err(|error| Failure::message(Exit::BadInput, error))?;
    let end = if args.no_newline { "" } else { "\n" };
    output::text(&format!("{token}{end}"))?;
    Ok(Exit::Ok)
}
