//! `portcullis certs ensure`: a CA and a leaf are there and good, or are made; for a first start, any number of times.
//!
//! Several containers start at once on one empty folder. Whoever holds the folder's lock decides alone, and a CA is written
//! beside its place, declared complete by one rename, and only then moved there: whoever is killed in between leaves
//! either nothing or what the next one can finish. A CA that is there is never replaced, whatever is wrong with it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_ca::{CaError, write};
use portcullis_identity::leaf::Compat;
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_tls::{Clock, CredentialFiles, Credentials, IdentityRules, MinVersion, TrustBundle};
use rustix::fs::{FlockOperation, flock};

use super::{CA_CERT, CA_KEY, Ca, Existing, LEAF_CERT, LEAF_KEY, LEAF_TRUST, ROOT_CERT, bad_input, failure, parse_id};
use crate::commands::Outcome;
use crate::exit::{Exit, Failure};
use crate::output;

/// The slowest key, RSA with 4096 bits, takes seconds; a few others may be before us.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// A CA that is being written.
const DRAFT: &str = ".making-ca";
/// A CA that is complete and on its way to its place.
const COMPLETE: &str = ".made-ca";

/// Make sure that a certificate is there and good, with a CA if there is none; says `unchanged` if so
///
/// For the first start of a container: any number of them may run at once on one CA folder. A new certificate is issued
/// if there is none, or the one there is for another ID, is not signed by this CA, does not fit its key, or is past half of
/// its life. A CA that is there is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart --ttl 30d")]
pub(super) struct Args {
    /// Folder of the CA, as `certs init` writes it; a CA for the ID's trust domain is made if there is none
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// SPIFFE ID of the workload
    #[arg(long, value_name = "SPIFFE_ID")]
    id: String,
    /// Folder for cert.pem, key.pem and ca.pem; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long a certificate that is issued is valid, such as 90m, 24h or 7d; never longer than its CA
    #[arg(long, value_parser = super::ttl, default_value = "24h")]
    ttl: Duration,
    /// Kind of key of a certificate that is issued: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072, rsa-4096 or ed25519
    #[arg(long, value_parser = super::key_type, default_value = "ecdsa-p256")]
    key: KeyType,
}

pub(super) fn run(args: &Args) -> Outcome {
    let id = parse_id(&args.id)?;
    if id.path().is_empty() {
        // Before a CA is made for it.
        return Err(bad_input(CaError::NoPath(id)));
    }
    // Held until the leaf is written too: whoever shares `out` finds it whole.
    let _lock = lock(&args.ca)?;
    if ensure_ca(&args.ca, &id.trust_domain())? {
        output::note(&format!("made a CA for {} in {}", id.trust_domain(), args.ca.display()));
    }
    let ca = Ca::read(&args.ca)?;
    let place = args.out.display();
    match wanting(&ca, &id, &args.out)? {
        None => output::text(&format!("unchanged: {id} in {place}\n"))?,
        Some(why) => {
            ca.issue(&id, args.ttl, args.key, &args.out, Existing::Replace)?;
            output::text(&format!("issued: {id} in {place} ({why})\n"))?;
        }
    }
    Ok(Exit::Ok)
}

/// Locks the folder itself, so that no file is left in it. The lock ends with the file, and so with the process.
pub(super) fn lock(folder: &Path) -> Result<File, Failure> {
    let named = || folder.display().to_string();
    DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(named)?;
    let opened = File::open(folder).with_context(named)?;
    let deadline = Instant::now() + LOCKED_WITHIN;
    loop {
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(opened),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                thread::sleep(POLL);
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let message = format!(
                    "{}: another process has held the lock of this folder for {} s; end it and try again",
                    named(),
                    LOCKED_WITHIN.as_secs()
                );
                return Err(Failure::message(Exit::Failure, message));
            }
            Err(error) => return Err(anyhow::Error::from(io::Error::from(error)).context(named()).into()),
        }
    }
}

/// Makes a CA if there is none; says whether it did. To be called with the lock.
fn ensure_ca(folder: &Path, trust_domain: &TrustDomain) -> Result<bool, Failure> {
    let (draft, complete) = (folder.join(DRAFT), folder.join(COMPLETE));
    if complete.exists() {
        // Whoever made it was killed before it was in its place.
        settle(&complete, folder)?;
        return Ok(true);
    }
    if [CA_KEY, CA_CERT, ROOT_CERT].iter().any(|name| folder.join(name).symlink_metadata().is_ok()) {
        return Ok(false);
    }
    if draft.exists() {
        fs::remove_dir_all(&draft).with_context(|| draft.display().to_string())?;
    }
    DirBuilder::new().mode(0o700).create(&draft).with_context(|| draft.display().to_string())?;
    for (name, content, private) in super::new_ca(trust_domain)? {
        write(&draft.join(name), content.as_bytes(), private, false).map_err(failure)?;
    }
    fs::rename(&draft, &complete).with_context(|| complete.display().to_string())?;
    settle(&complete, folder)?;
    Ok(true)
}

/// Moves a complete CA to its place, or what is left of it.
fn settle(complete: &Path, folder: &Path) -> Result<(), Failure> {
    for name in [CA_KEY, CA_CERT, ROOT_CERT] {
        let (from, to) = (complete.join(name), folder.join(name));
        if !from.exists() {
            continue;
        }
        if to.symlink_metadata().is_ok() {
            let message = format!(
                "{} is in the way of a CA that was being made in {}; remove one of the two",
                to.display(),
                complete.display()
            );
            return Err(Failure::message(Exit::Failure, message));
        }
        fs::rename(&from, &to).with_context(|| to.display().to_string())?;
    }
    fs::remove_dir(complete).with_context(|| complete.display().to_string())?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())?;
    Ok(())
}

/// Why a new certificate is needed; nothing if the one that is there is good.
fn wanting(ca: &Ca, id: &SpiffeId, out: &Path) -> Result<Option<String>, Failure> {
    let mut found = Vec::new();
    for name in [LEAF_CERT, LEAF_KEY, LEAF_TRUST] {
        let file = out.join(name);
        match fs::read(&file) {
            Ok(content) => found.push(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(format!("there was no {name}"))),
            Err(error) => return Err(anyhow::Error::from(error).context(file.display().to_string()).into()),
        }
    }
    let Ok([certificate, key, trust]) = <[Vec<u8>; 3]>::try_from(found) else {
        return Ok(Some("a file was missing".to_owned()));
    };
    if trust != ca.trust.as_bytes() {
        return Ok(Some(format!("{LEAF_TRUST} was not the root of this CA")));
    }
    Ok(judge(ca, id, certificate, key))
}

/// Judges as the proxy will, and beyond that whose certificate it is and how old.
fn judge(ca: &Ca, id: &SpiffeId, certificate: Vec<u8>, key: Vec<u8>) -> Option<String> {
    let clock = Clock::system();
    let now = clock.now_unix();
    // A root must have signed it itself, not another one of its bundle. A CA below a root stands in the chain.
    let is_root = TrustBundle::from_pem(ca.cert.as_bytes(), now).is_ok();
    let trust = if is_root { &ca.cert } else { &ca.trust };
    let below = !is_root && !String::from_utf8_lossy(&certificate).contains(ca.cert.trim());
    let rules = IdentityRules {
        trust_domain: id.trust_domain(),
        aliases: Vec::new(),
        expected_own_id: id.clone(),
        compat: Compat::default(),
        min_version: MinVersion::default(),
    };
    let files = CredentialFiles::new(certificate, key, trust.as_bytes().to_vec(), Vec::new());
    let credentials = match Credentials::validate(files, &rules, &clock) {
        Ok(credentials) => credentials,
        Err(error) => return Some(error.to_string()),
    };
    if below {
        return Some("another CA signed it".to_owned());
    }
    let (begin, end) = (credentials.svid().leaf.not_before_unix, credentials.not_after_unix());
    (now.saturating_sub(begin) >= end.saturating_sub(now)).then(|| "half of its life was over".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::parse("example.org").unwrap()
    }

    fn key(folder: &Path) -> Vec<u8> {
        fs::read(folder.join(CA_KEY)).unwrap()
    }

    /// Every place at which whoever makes a CA can be killed.
    #[test]
    fn what_was_begun_is_dropped_and_what_was_complete_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir(folder.join(DRAFT)).unwrap();
        fs::write(folder.join(DRAFT).join(CA_KEY), "half a key").unwrap();
        assert!(ensure_ca(folder, &domain()).unwrap());
        Ca::read(folder).unwrap();
        let made = key(folder);
        for moved in 0..=3 {
            fs::create_dir(folder.join(COMPLETE)).unwrap();
            for name in [CA_KEY, CA_CERT, ROOT_CERT].iter().skip(moved) {
                fs::rename(folder.join(name), folder.join(COMPLETE).join(name)).unwrap();
            }
            assert!(ensure_ca(folder, &domain()).unwrap(), "{moved} moved");
            assert_eq!(key(folder), made, "{moved} moved");
            Ca::read(folder).unwrap();
        }
        assert!(!ensure_ca(folder, &domain()).unwrap());
        assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "nothing else is left");
    }

    #[test]
    fn a_ca_is_never_replaced_be_it_half_a_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CA_KEY), "a key").unwrap();
        assert!(!ensure_ca(folder.path(), &domain()).unwrap());
        fs::create_dir(folder.path().join(COMPLETE)).unwrap();
        fs::write(folder.path().join(COMPLETE).join(CA_KEY), "another").unwrap();
        assert_eq!(ensure_ca(folder.path(), &domain()).unwrap_err().exit, Exit::Failure);
        assert_eq!(key(folder.path()), b"a key");
    }
}
