//! `portcullis certs`: a certificate authority in a folder, and workload certificates from it.
//!
//! For development, and for meshes small enough to be run by hand. Nothing is replaced unless requested: overwriting a CA key
//! invalidates every certificate that it ever signed.

mod ensure;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_ca::{Private, Root, WriteError, write};
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_tls::Clock;

use super::ca::folder::made_by_ca_init;
pub(super) use super::values::{key_type, trust_domain, ttl};
use crate::exit::{Exit, Failure, Outcome};
use crate::files;
use crate::output;

/// How long a root lives: ten years, as Istio's own.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The files of a CA, named as Istio names them.
const CA_CERT: &str = "ca-cert.pem";
const CA_KEY: &str = "ca-key.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// The files of a workload.
const LEAF_CERT: &str = "cert.pem";
const LEAF_KEY: &str = "key.pem";
const LEAF_TRUST: &str = "ca.pem";

/// Create a certificate authority in a folder, and issue certificates from it
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs init --out ca
  portcullis certs issue --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(Init),
    Issue(Issue),
    Ensure(ensure::Args),
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
    /// Trust domain that the CA may name workloads of
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
    /// Kind of key
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
    }
}

fn init(args: &Init) -> Outcome {
    // Another process may be creating one.
    let _lock = ensure::lock(&args.out)?;
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

/// A file to be written.
struct NewFile {
    name: &'static str,
    content: String,
    private: Private,
}

impl NewFile {
    /// A key: only its owner may read it.
    const fn key(name: &'static str, content: String) -> Self {
        Self { name, content, private: Private::Yes }
    }

    const fn public(name: &'static str, content: String) -> Self {
        Self { name, content, private: Private::No }
    }
}

/// A new CA, as the files that it is made of.
fn new_ca(trust_domain: &TrustDomain) -> Result<[NewFile; 3], Failure> {
    let root =
        Root::generate(trust_domain, ROOT_TTL, &Clock::system()).map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok([
        NewFile::key(CA_KEY, root.key_pem()),
        NewFile::public(CA_CERT, root.cert_pem().to_owned()),
        NewFile::public(ROOT_CERT, root.cert_pem().to_owned()),
    ])
}

pub(super) fn bad_input(error: impl Into<anyhow::Error>) -> Failure {
    Failure::new(Exit::BadInput, error)
}

pub(super) fn parse_id(text: &str) -> Result<SpiffeId, Failure> {
    SpiffeId::parse(text).with_context(|| text.escape_debug().to_string()).map_err(bad_input)
}

/// A CA, read from its folder.
struct Ca {
    root: Root,
    cert: String,
    trust: String,
}

impl Ca {
    fn read(folder: &Path) -> Result<Self, Failure> {
        if let Some(why) = made_by_ca_init(folder) {
            return Err(Failure::message(Exit::BadInput, why));
        }
        let read = |name: &str| read(&folder.join(name));
        let (cert, key, trust) = (read(CA_CERT)?, read(CA_KEY)?, read(ROOT_CERT)?);
        let root = Root::from_pem(&cert, &key, &Clock::system())
            .with_context(|| format!("{} and {CA_KEY}", folder.join(CA_CERT).display()))
            .map_err(bad_input)?;
        Ok(Self { root, cert, trust })
    }

    /// Issues a leaf into a folder.
    fn issue(&self, id: &SpiffeId, ttl: Duration, key: KeyType, out: &Path, existing: Existing) -> Result<(), Failure> {
        let issued = self.root.issue(id, ttl, key).map_err(bad_input)?;
        let files = [
            NewFile::key(LEAF_KEY, issued.key_pem),
            NewFile::public(LEAF_CERT, issued.cert_chain_pem),
            NewFile::public(LEAF_TRUST, self.trust.clone()),
        ];
        write_all(out, &files, existing)
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        let folder = path.parent().unwrap_or(path).display();
        let not_there = format!("there is no CA; make one with `portcullis certs init --out {folder}`");
        files::unusable(&path.display().to_string(), &error, &not_there)
    })
}

/// What to do about files that are there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Existing {
    /// Refuse always: a CA is never replaced.
    Protect,
    /// Refuse, and say how to replace them.
    Keep,
    Replace,
}

/// Writes all files or, if one of them exists and must stay, none.
fn write_all(folder: &Path, files: &[NewFile], existing: Existing) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(|| folder.display().to_string())?;
    let existing_file = files.iter().map(|file| folder.join(file.name)).find(|path| path.symlink_metadata().is_ok());
    match (existing, existing_file) {
        (Existing::Protect, Some(path)) => {
            let message =
                format!("{} exists already, and a CA is never replaced; choose another folder", path.display());
            return Err(Failure::message(Exit::Failure, message));
        }
        (Existing::Keep, Some(path)) => return Err(failure(WriteError::Exists(path))),
        _ => {}
    }
    for NewFile { name, content, private } in files {
        let replace = existing == Existing::Replace;
        write(&folder.join(name), content.as_bytes(), *private, replace).map_err(failure)?;
    }
    Ok(())
}

pub(super) fn failure(error: WriteError) -> Failure {
    let denied = matches!(&error, WriteError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    Failure::new(if denied { Exit::NoPermission } else { Exit::Failure }, error)
}
