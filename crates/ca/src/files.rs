//! Writes certificates and keys atomically. The mode is set before the first byte.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Whether only the owner may read a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Private {
    /// Mode 0600.
    Yes,
    /// Mode 0644.
    No,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It exists, and `replace` was not set.
    #[error("{} exists already; choose another folder, or replace it with --force", .0.display())]
    Exists(PathBuf),
    /// A system call failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}

/// Replaces a file atomically: writes a temporary file beside it, syncs it, and renames it. Readers see either the old or
/// the new content.
///
/// # Errors
/// If it exists and `replace` is false, or the system refuses.
pub fn write(path: &Path, content: &[u8], private: Private, replace: bool) -> Result<(), WriteError> {
    if !replace && path.symlink_metadata().is_ok() {
        return Err(WriteError::Exists(path.to_owned()));
    }
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let draft = folder.join(format!(".{name}.{}", distinct().map_err(failed)?));
    let result = write_draft(&draft, content, private)
        .and_then(|()| fs::rename(&draft, path))
        .and_then(|()| fs::File::open(folder)?.sync_all());
    if result.is_err() {
        // The temporary file may hold a key, so it is removed.
        let _gone = fs::remove_file(&draft);
    }
    result.map_err(failed)
}

/// A unique name. The process ID is not enough: it is 1 in every container, so a temporary file that a killed process left
/// behind would block the next one.
fn distinct() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system's random generator failed"))?;
    Ok(format!("{:016x}", u64::from_ne_bytes(bytes)))
}

fn write_draft(draft: &Path, content: &[u8], private: Private) -> io::Result<()> {
    let mode = match private {
        Private::Yes => 0o600,
        Private::No => 0o644,
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_private_and_nothing_is_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pem");
        write(&key, b"one", Private::Yes, false).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(write(&key, b"two", Private::Yes, false), Err(WriteError::Exists(_))));
        assert_eq!(fs::read(&key).unwrap(), b"one");
        write(&key, b"two", Private::Yes, true).unwrap();
        assert_eq!(fs::read(&key).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
    }
}
