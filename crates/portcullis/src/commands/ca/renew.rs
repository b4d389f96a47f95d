//! `portcullis ca renew`: another intermediate below the same root.

use std::path::PathBuf;

use anyhow::Context as _;
use portcullis_ca::Root;
use portcullis_tls::Clock;

use super::folder::{INTERMEDIATE_TTL, ROOT_CERT, ROOT_FOLDER, ROOT_KEY, put, read, refuse_certs_folder};
use crate::commands::Outcome;
use crate::exit::{Exit, Failure};
use crate::output;

/// Sign a new intermediate with the root, before the old one ends; a running CA takes it up
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca renew --dir ca
  portcullis ca renew --dir ca --root /media/safe/root")]
pub(super) struct Args {
    /// Folder of the CA
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Folder with root-cert.pem and root-key.pem [default: DIR/root]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Outcome {
    refuse_certs_folder(&args.dir, Exit::BadInput)?;
    let rotation =
        portcullis_ca::rotation::Rotation::load(&args.dir).map_err(|error| Failure::new(Exit::Failure, error))?;
    if let Some(rotation) = rotation {
        let phase = rotation.phase.name();
        let message = format!(
            "the root is being rotated ({phase}); bring that to its end first: `portcullis ca rotate-root status`"
        );
        return Err(Failure::message(Exit::Failure, message));
    }
    let folder = args.root.clone().unwrap_or_else(|| args.dir.join(ROOT_FOLDER));
    let (cert, key) = (folder.join(ROOT_CERT), folder.join(ROOT_KEY));
    let root = Root::from_pem(&read(&cert)?, &read(&key)?, &Clock::system());
    let root = root.with_context(|| cert.display().to_string()).map_err(Failure::bad_input)?;
    let trusted_path = args.dir.join(ROOT_CERT);
    let trusted = read(&trusted_path)?;
    let certificates = |text: &str, path: &std::path::Path| {
        portcullis_tls::certificates(text.as_bytes())
            .with_context(|| path.display().to_string())
            .map_err(Failure::bad_input)
    };
    let own = certificates(root.cert_pem(), &cert)?;
    if !certificates(&trusted, &trusted_path)?.iter().any(|der| own.contains(der)) {
        let message =
            format!("the root in {} is not in {}: workloads do not trust it", cert.display(), trusted_path.display());
        return Err(Failure::message(Exit::BadInput, message));
    }
    let intermediate = root.intermediate(INTERMEDIATE_TTL).map_err(|error| Failure::new(Exit::Failure, error))?;
    put(&args.dir, &intermediate, &trusted)?;
    output::note(&format!("wrote a new intermediate to {}", args.dir.display()));
    Ok(Exit::Ok)
}
