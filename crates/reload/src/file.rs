//! Reading one file so that nothing at its path can block, flood or be swapped meanwhile.
//!
//! The path is opened once, and everything after that uses the open file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use zeroize::Zeroizing;

use crate::error::ReadError;
use crate::limits::MAX_FILE_BYTES;

/// The bytes of a file. Shared, and wiped from memory when the last clone is dropped, since they may be a private key.
///
/// A watcher keeps them to compare with what it reads later: comparing bytes needs no hash, so no collision can hide a change.
/// A file that did not change keeps its allocation, so equality costs one pointer comparison for most files, and a
/// loader that keeps parsed results beside the `Content` they came from can skip what is unchanged.
#[derive(Clone)]
pub struct Content(Arc<Zeroizing<Vec<u8>>>);

impl Content {
    fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::new(Zeroizing::new(bytes))
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Eq for Content {}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.len())
    }
}

/// One file of a set.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileContent {
    /// Where it is, as the operator wrote it: below the folder's path, or the path from the list.
    pub path: PathBuf,
    /// Its content.
    pub content: Content,
    /// Its permission bits, such as 0o600, read from the open file. A change of them is a change of the set.
    pub mode: u32,
}

/// Reads the regular file at `real`, a path without links; it is named as `shown`.
pub(crate) fn read(real: &Path, shown: &Path) -> Result<FileContent, ReadError> {
    let file = open(real, shown)?;
    let metadata = file.metadata().map_err(|error| ReadError::io(shown, error))?;
    if !metadata.is_file() {
        return Err(ReadError::NotRegularFile { path: shown.to_owned() });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ReadError::FileTooLarge { path: shown.to_owned() });
    }
    // One byte more than expected, so that the buffer need not grow: growing would leave an unwiped copy behind.
    let expected = usize::try_from(metadata.len()).unwrap_or_default().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    let limit = MAX_FILE_BYTES.saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(|error| ReadError::io(shown, error))?;
    match bytes.len() as u64 {
        0 => Err(ReadError::EmptyFile { path: shown.to_owned() }),
        length if length > MAX_FILE_BYTES => Err(ReadError::FileTooLarge { path: shown.to_owned() }),
        _ => Ok(FileContent {
            path: shown.to_owned(),
            content: Content::new(bytes),
            mode: metadata.permissions().mode() & 0o7777,
        }),
    }
}

/// `NONBLOCK` so that a FIFO does not block; `NOFOLLOW` since a link here was swapped in after its path was resolved.
fn open(real: &Path, shown: &Path) -> Result<File, ReadError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(real, flags, Mode::empty()) {
        Ok(fd) => Ok(File::from(fd)),
        // A socket.
        Err(rustix::io::Errno::NXIO) => Err(ReadError::NotRegularFile { path: shown.to_owned() }),
        Err(errno) => Err(ReadError::io(shown, io::Error::from(errno))),
    }
}
