//! `portcullis certs`: a certificate authority in a folder, workload certificates from it, and what any certificate is.
//!
//! For development, and for meshes small enough to be run by hand. Nothing is replaced unless requested: overwriting a CA key
//! invalidates every certificate that it ever signed.

mod ca_folder;
mod ensure;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueHint;
use portcullis_identity::{KeyType, TrustDomain};

pub(crate) use self::ca_folder::lock;
use self::ca_folder::{CA_CERT, CA_KEY, Ca, Existing, LEAF_CERT, LEAF_KEY, LEAF_TRUST, ROOT_CERT, new_ca, write_all};
use super::ca::folder::made_by_ca_init;
use super::values::{key_type, parse_id, trust_domain, ttl};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;

/// Create a certificate authority in a folder, issue certificates from it, and show any certificate
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs init --out ca
  portcullis certs issue --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs show certs/cart/cert.pem")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(Init),
    Issue(Issue),
    Ensure(ensure::Args),
    Show(show::Args),
}

/// Create a root: writes ca-cert.pem, ca-key.pem (mode 0600) and root-cert.pem
///
/// An existing CA is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  portcullis certs init --out ca --trust-domain cluster.local")]
struct Init {
    /// Folder to write into; created if it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// Trust domain of the CA
    #[arg(long, value_name = "TD", value_parser = trust_domain, default_value = "cluster.local")]
    trust_domain: TrustDomain,
}

/// Issue a certificate for a workload: writes cert.pem, key.pem (mode 0600) and ca.pem
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs issue --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs issue --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart --ttl 90m --force")]
struct Issue {
    /// Folder that `certs init` wrote
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    ca: PathBuf,
    /// SPIFFE ID of the workload
    #[arg(long, value_name = "SPIFFE_ID")]
    id: String,
    /// Folder to write into; created if it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// How long the certificate is valid, such as 90m, 24h or 7d; never longer than its CA
    #[arg(long, value_parser = ttl, default_value = "24h")]
    ttl: Duration,
    /// Key type
    #[arg(long, value_parser = key_type(), default_value = "ecdsa-p256")]
    key: KeyType,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.command {
        Command::Init(args) => init(args),
        Command::Issue(args) => issue(args),
        Command::Ensure(args) => ensure::run(args),
        Command::Show(args) => show::run(args),
    }
}

fn init(args: &Init) -> Outcome {
    // Another process may be creating one.
    let _lock = lock(&args.out)?;
    if let Some(why) = made_by_ca_init(&args.out) {
        return Err(Failure::message(Exit::Failure, why));
    }
    write_all(&args.out, &new_ca(&args.trust_domain)?, Existing::Protect)?;
    output::note(&format!("wrote {CA_CERT}, {CA_KEY} and {ROOT_CERT} to {}", args.out.display()));
    Ok(Exit::Ok)
}

fn issue(args: &Issue) -> Outcome {
    let id = parse_id(&args.id)?;
    let existing = if args.force { Existing::Replace } else { Existing::Keep };
    Ca::read(&args.ca)?.issue(&id, args.ttl, args.key, &args.out, existing)?;
    output::note(&format!("wrote {LEAF_CERT}, {LEAF_KEY} and {LEAF_TRUST} for {id} to {}", args.out.display()));
    Ok(Exit::Ok)
}
