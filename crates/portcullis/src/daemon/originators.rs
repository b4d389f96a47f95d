//! The certificates and keys that DestinationRules name for TLS origination.
//!
//! They are read from `outbound.tlsFolder` only, whatever a rule names: whoever may write a rule may not make the sidecar read, and
//! use, any file. A file that cannot be used leaves what was made of it before in use; without that, connections are refused.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs, io};

use portcullis_policy::directory::{Directory, OriginationMode, TlsOrigination};
use portcullis_proxy::Originators;
use portcullis_tls::{Clock, MinVersion, OriginationParts, Originator, Roots};

/// Where systems keep the CAs that they trust. The first one that is there is read, unless `$SSL_CERT_FILE` names another.
pub(super) const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The largest file that is read; the CAs of a system have a quarter of it.
const MAX_FILE: u64 = 1 << 20;

/// What was read, and what was made of it.
pub(super) struct OriginatorFiles {
    folder: Option<PathBuf>,
    /// The content of each file at the last reading; `None` if it could not be read.
    contents: HashMap<PathBuf, Option<Vec<u8>>>,
    /// The last originator of each rule that could be used.
    usable: Vec<(Arc<TlsOrigination>, Arc<Originator>)>,
}

impl OriginatorFiles {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, contents: HashMap::new(), usable: Vec::new() }
    }

    /// Whether a file that was read for the last originators has other content now.
    pub(super) fn have_changed(&self) -> bool {
        self.contents.iter().any(|(path, content)| read(path).ok() != *content)
    }

    /// What each rule of the directory needs. Reads every file again.
    pub(super) fn originators(&mut self, directory: &Directory) -> Originators {
        self.contents.clear();
        let before = std::mem::take(&mut self.usable);
        let one = |rule: &Arc<TlsOrigination>| {
            let made = self.originator(rule).map(Arc::new).or_else(|error| {
                let kept = before.iter().find(|(other, _)| other == rule).map(|(_, kept)| Arc::clone(kept));
                tracing::error!(rule = %rule.rule, error, kept = kept.is_some(), "TLS origination");
                kept.ok_or(error)
            });
            (Arc::clone(rule), made)
        };
        let originators: Originators = directory.originations().iter().map(one).collect();
        let usable = |(rule, made): &(Arc<TlsOrigination>, Result<Arc<Originator>, String>)| {
            Some((Arc::clone(rule), Arc::clone(made.as_ref().ok()?)))
        };
        self.usable = originators.iter().filter_map(usable).collect();
        originators
    }

    fn originator(&mut self, rule: &TlsOrigination) -> Result<Originator, String> {
        let sni = rule.sni.as_deref().ok_or("tls.sni must be set: the host is a wildcard")?;
        let ca = rule.ca.as_ref().map(|file| self.named(file)).transpose()?;
        let client = match &rule.mode {
            OriginationMode::Simple => None,
            OriginationMode::Mutual { certificate, key } => Some((self.named(certificate)?, self.named(key)?)),
        };
        let system = if ca.is_none() { self.system_roots()? } else { Vec::new() };
        let parts = OriginationParts {
            ca: ca.as_deref().map_or(Roots::System(&system), Roots::Chosen),
            client: client.as_ref().map(|(chain, key)| (&**chain, &**key)),
            subject_alt_names: &rule.subject_alt_names,
            sni,
            min_version: MinVersion::Tls12,
        };
        Originator::new(&parts, &Clock::system()).map_err(|error| error.to_string())
    }

    /// A file that a rule names.
    fn named(&mut self, file: &str) -> Result<Vec<u8>, String> {
        let Some(folder) = &self.folder else {
            return Err(format!("{file} is named, and outbound.tlsFolder, where it would have to be, is not set"));
        };
        let path = within(folder, file)?;
        self.read(path)
    }

    fn system_roots(&mut self) -> Result<Vec<u8>, String> {
        let named = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        let known = SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists());
        let path =
            named.or(known).ok_or("caCertificates is not set, and this system has no CAs of its own: name a file")?;
        self.read(path)
    }

    fn read(&mut self, path: PathBuf) -> Result<Vec<u8>, String> {
        let content = read(&path);
        self.contents.insert(path.clone(), content.as_ref().ok().cloned());
        content.map_err(|error| format!("{}: {error}", path.display()))
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

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(io::Error::other("is not a regular file of at most 1 MiB"));
    }
    fs::read(path)
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

    #[test]
    fn a_change_of_content_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, "one").unwrap();
        let mut files = OriginatorFiles::new(Some(folder.path().to_owned()));
        assert_eq!(files.named("ca.pem").unwrap(), b"one");
        assert!(!files.have_changed());
        fs::write(&file, "two").unwrap();
        assert!(files.have_changed());
        fs::remove_file(&file).unwrap();
        assert!(files.have_changed());
    }
}
