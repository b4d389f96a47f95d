//! `portcullis certs ensure`: creates a CA and a leaf unless valid ones exist. Idempotent, for the first start of containers.
//!
//! Several containers may start at once on one empty folder. The holder of the folder's lock decides alone. A CA is written
//! into a draft folder, declared complete by one rename, and only then moved into place: a process that is killed in between
//! leaves nothing, or what the next one completes. An existing CA is never replaced, even if it is damaged.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueHint;
use portcullis_ca::{CaError, write};
use portcullis_identity::leaf::Compat;
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_tls::{Clock, CredentialFiles, Credentials, IdentityRules, MinVersion, TrustBundle};

use super::ca_folder::{
    CA_CERT, CA_KEY, Ca, Existing, LEAF_CERT, LEAF_KEY, LEAF_TRUST, NewFile, ROOT_CERT, lock, new_ca,
};
use crate::commands::values::{self, parse_id};
use crate::exit::{Exit, Failure, Outcome};
use crate::files::not_written;
use crate::output;

/// A CA that is being written.
const DRAFT: &str = ".making-ca";
/// A CA that is complete, but not moved into place yet.
const COMPLETE: &str = ".made-ca";

/// Ensure that a valid certificate exists, and a CA; prints `unchanged` if nothing had to be done
///
/// For the first start of containers: any number of them may run this at once on one CA folder. A certificate is issued if
/// there is none, or if it is for another ID, not signed by this CA, does not match its key, or is past half of its lifetime.
/// An existing CA is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart
  portcullis certs ensure --ca ca --id spiffe://cluster.local/ns/shop/sa/cart --out certs/cart --ttl 30d")]
pub(super) struct Args {
    /// Folder of the CA, as `certs init` writes it; a CA for the ID's trust domain is created if there is none
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    ca: PathBuf,
    /// SPIFFE ID of the workload
    #[arg(long, value_name = "SPIFFE_ID")]
    id: String,
    /// Folder for cert.pem, key.pem and ca.pem; created if it is missing
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: PathBuf,
    /// How long a certificate that is issued is valid, such as 90m, 24h or 7d; never longer than its CA
    #[arg(long, value_parser = values::ttl, default_value = "24h")]
    ttl: Duration,
    /// Key type of an issued certificate
    #[arg(long, value_parser = values::key_type(), default_value = "ecdsa-p256")]
    key: KeyType,
}

pub(super) fn run(args: &Args) -> Outcome {
    let id = parse_id(&args.id)?;
    if id.path().is_empty() {
        // Before a CA is made for it.
        return Err(Failure::bad_input(CaError::NoPath(id)));
    }
    // Held until the leaf is written too: processes that share `out` find it complete.
    let _lock = lock(&args.ca)?;
    if ensure_ca(&args.ca, &id.trust_domain())? {
        output::note(&format!("made a CA for {} in {}", id.trust_domain(), args.ca.display()));
    }
    let ca = Ca::read(&args.ca)?;
    let out = args.out.display();
    match reason_to_issue(&ca, &id, &args.out)? {
        None => output::text(&format!("unchanged: {id} in {out}\n"))?,
        Some(why) => {
            ca.issue(&id, args.ttl, args.key, &args.out, Existing::Replace)?;
            output::text(&format!("issued: {id} in {out} ({why})\n"))?;
        }
    }
    Ok(Exit::Ok)
}

/// Creates a CA if there is none; returns whether it did. Call with the lock held.
fn ensure_ca(folder: &Path, trust_domain: &TrustDomain) -> Result<bool, Failure> {
    let (draft, complete) = (folder.join(DRAFT), folder.join(COMPLETE));
    if complete.exists() {
        // Its creator was killed before it was in place.
        move_into_place(&complete, folder)?;
        return Ok(true);
    }
    if [CA_KEY, CA_CERT, ROOT_CERT].iter().any(|name| folder.join(name).symlink_metadata().is_ok()) {
        return Ok(false);
    }
    if draft.exists() {
        fs::remove_dir_all(&draft).with_context(|| draft.display().to_string())?;
    }
    DirBuilder::new().mode(0o700).create(&draft).with_context(|| draft.display().to_string())?;
    for NewFile { name, content, private } in new_ca(trust_domain)? {
        write(&draft.join(name), content.as_bytes(), private, false).map_err(not_written)?;
    }
    fs::rename(&draft, &complete).with_context(|| complete.display().to_string())?;
    move_into_place(&complete, folder)?;
    Ok(true)
}

/// Moves a complete CA, or what is left of it, into place.
fn move_into_place(complete: &Path, folder: &Path) -> Result<(), Failure> {
    for name in [CA_KEY, CA_CERT, ROOT_CERT] {
        let (from, to) = (complete.join(name), folder.join(name));
        if !from.exists() {
            continue;
        }
        if to.symlink_metadata().is_ok() {
            let message = format!(
                "{} blocks a CA that was being created in {}; remove one of the two",
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

/// Why a new certificate is needed; `None` if the existing one is valid.
fn reason_to_issue(ca: &Ca, id: &SpiffeId, out: &Path) -> Result<Option<String>, Failure> {
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
    Ok(fault(ca, id, certificate, key))
}

/// What is wrong with a certificate: validates as the proxy does, and checks which CA signed it and how old it is.
fn fault(ca: &Ca, id: &SpiffeId, certificate: Vec<u8>, key: Vec<u8>) -> Option<String> {
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
    (now.saturating_sub(begin) >= end.saturating_sub(now)).then(|| "half of its lifetime was over".to_owned())
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

    /// Every point at which the creator of a CA can be killed.
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
