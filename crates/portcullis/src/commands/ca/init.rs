//! `portcullis ca init`: creates the folder of a CA.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_ca::{Private, RegisterError, Registered, Registrations, Root, TokenKey, register, write};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_tls::Clock;

use super::folder::{
    CA_CERT, INTERMEDIATE_TTL, REGISTRATIONS, ROOT_CERT, ROOT_FOLDER, ROOT_KEY, TOKEN_KEY, put, read,
    refuse_certs_folder,
};
use super::istiod::NewRoot;
use crate::commands::Outcome;
use crate::commands::values::{parse_id, trust_domain};
use crate::exit::{Exit, Failure};
use crate::files::not_written;
use crate::output;

/// Create a root, an intermediate below it, a key for bootstrap tokens, and a file for registrations
///
/// The intermediate signs certificates of workloads. The root is in DIR/root; only `ca renew` reads it again, so move that folder to a safe place. An
/// existing CA is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis ca init --dir ca
  portcullis ca init --dir ca --trust-domain prod.example --id spiffe://prod.example/ns/shop/sa/cart
  portcullis ca init --dir ca --key-type rsa-4096 --root-ttl 3650d
  portcullis ca init --dir /var/lib/portcullis-ca --keep-existing --id spiffe://cluster.local/ns/shop/sa/web")]
pub(super) struct Args {
    /// Folder of the CA; created, with access for its owner only, if it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Trust domain of the CA
    #[arg(long, value_name = "TD", value_parser = trust_domain, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// SPIFFE ID to register; may be repeated
    #[arg(long, value_name = "SPIFFE_ID")]
    id: Vec<String>,
    #[command(flatten)]
    new_root: NewRoot,
    /// If a CA exists, print `unchanged` instead of failing, and register the IDs of --id that are missing
    #[arg(long)]
    keep_existing: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let dir = &args.dir;
    // Before anything is written.
    let registrations = registrations(args)?;
    if dir.join(CA_CERT).symlink_metadata().is_ok() {
        refuse_certs_folder(dir, Exit::Failure)?;
        if args.keep_existing {
            return keep(args);
        }
        let message = format!(
            "{} exists already, and a CA is never replaced; choose another folder",
            dir.join(CA_CERT).display()
        );
        return Err(Failure::message(Exit::Failure, message));
    }
    let folder = dir.join(ROOT_FOLDER);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder).with_context(|| folder.display().to_string())?;
    let root = root(&folder, args)?;
    let key = TokenKey::generate().map_err(|error| Failure::new(Exit::Failure, error))?;
    unless_there(&dir.join(TOKEN_KEY), key.as_bytes(), Private::Yes)?;
    unless_there(&dir.join(REGISTRATIONS), registrations.as_bytes(), Private::No)?;
    let intermediate = root.intermediate(INTERMEDIATE_TTL).map_err(|error| Failure::new(Exit::Failure, error))?;
    put(dir, &intermediate, root.cert_pem())?;
    output::note(&format!(
        "wrote a CA for {} to {}\nnext: keep {} in a safe place that is not this machine, and write identities into {}",
        args.trust_domain,
        dir.display(),
        folder.display(),
        dir.join(REGISTRATIONS).display()
    ));
    Ok(Exit::Ok)
}

/// Keeps the existing CA, and registers the new identities. A running CA reloads the file.
fn keep(args: &Args) -> Outcome {
    let dir = &args.dir;
    for id in register_missing(dir, &ids(args)?, Some(&args.trust_domain))? {
        output::text(&format!("registered: {id}\n"))?;
    }
    output::text(&format!("unchanged: a CA is in {}\n", dir.display()))?;
    Ok(Exit::Ok)
}

/// Writes identities that are not registered yet into `identities.yaml`, and returns those.
pub(super) fn register_missing(
    dir: &Path,
    ids: &[SpiffeId],
    expected: Option<&TrustDomain>,
) -> Result<Vec<SpiffeId>, Failure> {
    let path = dir.join(REGISTRATIONS);
    let text = read(&path)?;
    let registered = register(&text, dir, ids).map_err(|error| match error {
        RegisterError::Wrong(problems) => {
            let lines: Vec<_> = problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect();
            Failure::message(Exit::BadInput, lines.join("\n"))
        }
        form @ RegisterError::Form(_) => Failure::message(Exit::BadInput, format!("{}: {form}", path.display())),
    })?;
    let Some(Registered { text, added }) = registered else { return Ok(Vec::new()) };
    let own = portcullis_ca_server::trust_domain(dir).map_err(|error| Failure::message(Exit::BadInput, error))?;
    let other = expected.filter(|expected| **expected != own).cloned();
    let other = other.or_else(|| added.iter().map(SpiffeId::trust_domain).find(|domain| *domain != own));
    if let Some(other) = other {
        let message = format!("the CA in {} is of trust domain {own}, not {other}", dir.display());
        return Err(Failure::message(Exit::BadInput, message));
    }
    write(&path, text.as_bytes(), Private::No, true).map_err(not_written)?;
    Ok(added)
}

/// The root that is there, such as one that an interrupted run has made; or a new one. The key is written first, so that a
/// certificate without a key is a root that was moved away on purpose.
fn root(folder: &Path, args: &Args) -> Result<Root, Failure> {
    let trust_domain = &args.trust_domain;
    let (cert, key) = (folder.join(ROOT_CERT), folder.join(ROOT_KEY));
    if cert.exists() {
        let root = Root::from_pem(&read(&cert)?, &read(&key)?, &Clock::system());
        let root = root.with_context(|| cert.display().to_string()).map_err(Failure::bad_input)?;
        if root.trust_domain() != trust_domain {
            let message = format!("{}: it is of trust domain {}", cert.display(), root.trust_domain());
            return Err(Failure::message(Exit::BadInput, message));
        }
        return Ok(root);
    }
    let root = args.new_root.make(trust_domain)?;
    write(&key, root.key_pem().as_bytes(), Private::Yes, true).map_err(not_written)?;
    write(&cert, root.cert_pem().as_bytes(), Private::No, true).map_err(not_written)?;
    Ok(root)
}

fn unless_there(path: &Path, content: &[u8], private: Private) -> Result<(), Failure> {
    if path.exists() { Ok(()) } else { write(path, content, private, false).map_err(not_written) }
}

/// Those that are to be registered.
fn ids(args: &Args) -> Result<Vec<SpiffeId>, Failure> {
    let domain = &args.trust_domain;
    let one = |text: &String| match parse_id(text)? {
        id if id.trust_domain() == *domain => Ok(id),
        id => Err(Failure::message(Exit::BadInput, format!("{id} does not belong to trust domain {domain}"))),
    };
    args.id.iter().map(one).collect()
}

/// The registrations file, validated by the parser that the CA uses.
fn registrations(args: &Args) -> Result<String, Failure> {
    let domain = &args.trust_domain;
    let mut text = format!(
        "# Who may have a certificate from this CA. It is read again when it changes; a file with a mistake changes nothing,\n\
         # and the log says where the mistake is.\n\
         # defaults: {{ttl: 24h, maxTtl: 24h}}\n\
         # trustBundles: {{partner.example: partner.pem}}\n\
         #\n\
         # - id: spiffe://{domain}/ns/shop/sa/cart\n\
         #   ttl: 12h\n\
         #   keyTypes: [ecdsa-p256, rsa-2048]\n"
    );
    text.push_str(if args.id.is_empty() { "identities: []\n" } else { "identities:\n" });
    for id in ids(args)? {
        text.push_str(&format!("- id: {id}\n"));
    }
    Registrations::read(text.as_bytes(), &args.dir).map_err(|problems| {
        let lines: Vec<_> = problems.iter().map(|problem| problem.message.clone()).collect();
        Failure::message(Exit::BadInput, format!("--id: {}", lines.join("; ")))
    })?;
    Ok(text)
}
