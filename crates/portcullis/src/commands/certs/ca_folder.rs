//! The folder of a CA as `certs` keeps it: its files, its lock, and the leaves that are issued from it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_ca::{Private, Root, WriteError, write};
use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_tls::Clock;
use rustix::fs::{FlockOperation, flock};

use crate::commands::ca::folder::made_by_ca_init;
use crate::exit::{Exit, Failure};
use crate::files::{self, not_written};

/// How long a root lives: ten years, as Istio's own.
const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The files of a CA, named as Istio names them.
pub(super) const CA_CERT: &str = "ca-cert.pem";
pub(super) const CA_KEY: &str = "ca-key.pem";
pub(super) const ROOT_CERT: &str = "root-cert.pem";

/// The files of a workload.
pub(super) const LEAF_CERT: &str = "cert.pem";
pub(super) const LEAF_KEY: &str = "key.pem";
pub(super) const LEAF_TRUST: &str = "ca.pem";

/// The slowest key, RSA with 4096 bits, takes seconds, and a few other processes may be first.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Locks the folder itself, so that no file is left in it. The lock ends with the file, and so with the process.
pub(crate) fn lock(folder: &Path) -> Result<File, Failure> {
    let named = || folder.display().to_string();
    DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(named)?;
    let opened = File::open(folder).with_context(named)?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
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
                    LOCK_TIMEOUT.as_secs()
                );
                return Err(Failure::message(Exit::Failure, message));
            }
            Err(error) => return Err(anyhow::Error::from(io::Error::from(error)).context(named()).into()),
        }
    }
}

/// A file to be written.
pub(super) struct NewFile {
    pub(super) name: &'static str,
    pub(super) content: String,
    pub(super) private: Private,
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
pub(super) fn new_ca(trust_domain: &TrustDomain) -> Result<[NewFile; 3], Failure> {
    let root =
        Root::generate(trust_domain, ROOT_TTL, &Clock::system()).map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok([
        NewFile::key(CA_KEY, root.key_pem()),
        NewFile::public(CA_CERT, root.cert_pem().to_owned()),
        NewFile::public(ROOT_CERT, root.cert_pem().to_owned()),
    ])
}

/// A CA, read from its folder.
pub(super) struct Ca {
    root: Root,
    pub(super) cert: String,
    pub(super) trust: String,
}

impl Ca {
    pub(super) fn read(folder: &Path) -> Result<Self, Failure> {
        if let Some(why) = made_by_ca_init(folder) {
            return Err(Failure::message(Exit::BadInput, why));
        }
        let read = |name: &str| read(&folder.join(name));
        let (cert, key, trust) = (read(CA_CERT)?, read(CA_KEY)?, read(ROOT_CERT)?);
        let root = Root::from_pem(&cert, &key, &Clock::system())
            .with_context(|| format!("{} and {CA_KEY}", folder.join(CA_CERT).display()))
            .map_err(Failure::bad_input)?;
        Ok(Self { root, cert, trust })
    }

    /// Issues a leaf into a folder.
    pub(super) fn issue(
        &self,
        id: &SpiffeId,
        ttl: Duration,
        key: KeyType,
        out: &Path,
        existing: Existing,
    ) -> Result<(), Failure> {
        let issued = self.root.issue(id, ttl, key).map_err(Failure::bad_input)?;
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
pub(super) enum Existing {
    /// Refuse always: a CA is never replaced.
    Protect,
    /// Refuse, and report how to replace them.
    Keep,
    Replace,
}

/// Writes all files or, if one of them exists and must stay, none.
pub(super) fn write_all(folder: &Path, files: &[NewFile], existing: Existing) -> Result<(), Failure> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(|| folder.display().to_string())?;
    let existing_file = files.iter().map(|file| folder.join(file.name)).find(|path| path.symlink_metadata().is_ok());
    match (existing, existing_file) {
        (Existing::Protect, Some(path)) => {
            let message =
                format!("{} exists already, and a CA is never replaced; choose another folder", path.display());
            return Err(Failure::message(Exit::Failure, message));
        }
        (Existing::Keep, Some(path)) => return Err(not_written(WriteError::Exists(path))),
        _ => {}
    }
    for NewFile { name, content, private } in files {
        let replace = existing == Existing::Replace;
        write(&folder.join(name), content.as_bytes(), *private, replace).map_err(not_written)?;
    }
    Ok(())
}
