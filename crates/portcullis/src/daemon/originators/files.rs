//! Where the files for TLS origination are, and what is remembered of them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, io};

use portcullis_tls::ContentDigest;
use zeroize::Zeroizing;

/// Where systems keep the CAs that they trust. The first one that is there is read, unless `$SSL_CERT_FILE` names another.
const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The largest file that is read; the CAs of a system have a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// Every path from which the CAs of the system may be read, for the sandbox.
pub(in crate::daemon) fn system_roots() -> impl Iterator<Item = PathBuf> {
    chosen_bundle().into_iter().chain(SYSTEM_ROOTS.iter().map(PathBuf::from))
}

fn chosen_bundle() -> Option<PathBuf> {
    env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A file by what names it, and not by where links lead today.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) enum Source {
    /// As a rule names it.
    Named(Arc<str>),
    /// The CAs of the system.
    System,
}

/// What is remembered of a file: a digest, since it may hold a private key, or why it could not be read.
pub(super) type FileDigest = Result<ContentDigest, String>;

/// The content of a file.
#[derive(Clone)]
pub(super) struct Content {
    pub(super) bytes: Arc<Zeroizing<Vec<u8>>>,
    pub(super) digest: ContentDigest,
}

/// Where files are looked for.
pub(super) struct Places {
    /// `outbound.tlsFolder`.
    folder: Option<PathBuf>,
    /// The CAs of the system, if they are not at one of the usual places.
    bundle: Option<PathBuf>,
}

impl Places {
    /// With the CAs of the system where it has them, or where `$SSL_CERT_FILE` says.
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, bundle: chosen_bundle() }
    }

    #[cfg(test)]
    pub(super) const fn with_bundle(folder: Option<PathBuf>, bundle: PathBuf) -> Self {
        Self { folder, bundle: Some(bundle) }
    }

    /// What is remembered of a file that is read now. Links are followed anew each time.
    pub(super) fn look(&self, source: &Source) -> FileDigest {
        self.read(source).map(|content| content.digest)
    }

    fn read(&self, source: &Source) -> Result<Content, String> {
        let path = self.path(source)?;
        let bytes = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Content { digest: ContentDigest::of(&bytes), bytes: Arc::new(bytes) })
    }

    fn path(&self, source: &Source) -> Result<PathBuf, String> {
        match (source, &self.folder) {
            (Source::Named(file), Some(folder)) => within(folder, file),
            (Source::Named(file), None) => {
                Err(format!("{file} is named, and outbound.tlsFolder, where it would have to be, is not set"))
            }
            (Source::System, _) => {
                let usual = || SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
                let none = "caCertificates is not set, and this system has no CAs of its own: name a file";
                self.bundle.clone().or_else(usual).ok_or_else(|| none.to_owned())
            }
        }
    }
}

/// Reads each file once, so that all rules are prepared from the same content.
pub(super) struct Reading<'p> {
    places: &'p Places,
    contents: HashMap<Source, Result<Content, String>>,
}

impl<'p> Reading<'p> {
    pub(super) fn new(places: &'p Places) -> Self {
        Self { places, contents: HashMap::new() }
    }

    pub(super) fn read(&mut self, source: Source) -> Result<Content, String> {
        match self.contents.entry(source) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let content = self.places.read(new.key());
                new.insert(content).clone()
            }
        }
    }

    /// What is remembered of all that was read.
    pub(super) fn seen(self) -> HashMap<Source, FileDigest> {
        self.contents.into_iter().map(|(source, content)| (source, content.map(|content| content.digest))).collect()
    }
}

/// The path of a file of the folder. Links may lead to another place within it.
fn within(folder: &Path, file: &str) -> Result<PathBuf, String> {
    let resolved = |path: &Path| fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()));
    let (folder, path) = (resolved(folder)?, resolved(&folder.join(file))?);
    if !path.starts_with(&folder) {
        return Err(format!("{file} is not in outbound.tlsFolder ({})", folder.display()));
    }
    Ok(path)
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other("is not a regular file of at most 1 MiB"));
    }
    fs::read(path).map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_the_folder_are_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tls");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("ca.pem"), "x").unwrap();
        fs::write(root.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("ca.pem", folder.join("inner")).unwrap();
        let path = |file: &str| within(&folder, file);
        let ca = folder.join("ca.pem").canonicalize().unwrap();
        for good in ["ca.pem", "./ca.pem", "inner", ca.to_str().unwrap()] {
            assert_eq!(path(good).as_ref(), Ok(&ca), "{good}");
        }
        let secret = root.path().join("secret");
        for bad in ["../secret", "link", secret.to_str().unwrap(), "/etc/hostname", "none"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
