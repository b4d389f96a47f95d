//! Why a set of files could not be read: one variant for each cause that an operator can fix.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::limits::MAX_FILE_BYTES;

/// One file or folder that could not be taken into the set.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The path names a folder, FIFO, socket or device where a regular file belongs.
    #[error("{}: not a regular file", path.display())]
    NotRegularFile {
        /// The path as the operator wrote it.
        path: PathBuf,
    },
    /// The file is larger than [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).
    #[error("{}: larger than {} bytes", path.display(), MAX_FILE_BYTES)]
    FileTooLarge {
        /// The path as the operator wrote it.
        path: PathBuf,
    },
    /// The folder holds more than the limits for bytes, entries or depth allow.
    #[error("{}: more than {limit}", path.display())]
    FolderTooLarge {
        /// The folder as the operator wrote it.
        path: PathBuf,
        /// The limit that was passed, with its unit.
        limit: String,
    },
    /// The file has no bytes, as it has between truncation and writing.
    #[error("{}: empty, probably a write in progress (to remove its contents for good, delete the file)", path.display())]
    EmptyFile {
        /// The path as the operator wrote it.
        path: PathBuf,
    },
    /// A symbolic link points out of the folder.
    #[error("{}: the link leaves the folder, to {}", path.display(), target.display())]
    LeavesFolder {
        /// The link as the operator wrote it.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A folder is reached again from within itself.
    #[error("{}: the link leads back to a folder that holds it", path.display())]
    FolderLoop {
        /// The link as the operator wrote it.
        path: PathBuf,
    },
    /// The folder is on another volume than the files that were read from it, and has none of them.
    #[error("{}: the volume that held the files was unmounted or replaced, and the folder has none now", path.display())]
    VolumeChanged {
        /// The folder as the operator wrote it.
        path: PathBuf,
    },
    /// All files of the folder are gone, and nothing shows that they were deleted.
    #[error(
        "{}: all files disappeared without being deleted one by one (if that is intended, restart, or add a file that holds only a comment)",
        path.display()
    )]
    FilesVanished {
        /// The folder as the operator wrote it.
        path: PathBuf,
    },
    /// The operating system reported an error.
    #[error("{}: {error}", path.display())]
    Io {
        /// The path as the operator wrote it.
        path: PathBuf,
        /// The error.
        #[source]
        error: io::Error,
    },
}

impl ReadError {
    /// The stable reason code.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotRegularFile { .. } => "not-regular-file",
            Self::FileTooLarge { .. } => "file-too-large",
            Self::FolderTooLarge { .. } => "folder-too-large",
            Self::EmptyFile { .. } => "empty-file",
            Self::LeavesFolder { .. } => "link-leaves-folder",
            Self::FolderLoop { .. } => "folder-loop",
            Self::VolumeChanged { .. } => "volume-changed",
            Self::FilesVanished { .. } => "files-vanished",
            Self::Io { .. } => "unreadable",
        }
    }

    /// The file or folder it is about, as the operator wrote it.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::NotRegularFile { path }
            | Self::FileTooLarge { path }
            | Self::FolderTooLarge { path, .. }
            | Self::EmptyFile { path }
            | Self::LeavesFolder { path, .. }
            | Self::FolderLoop { path }
            | Self::VolumeChanged { path }
            | Self::FilesVanished { path }
            | Self::Io { path, .. } => path,
        }
    }

    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// Everything that is wrong with a set, at least one error.
#[derive(Debug)]
pub struct ReadErrors(Vec<ReadError>);

/// At most so many errors are printed; a folder of FIFOs must not fill the log.
const SHOWN: usize = 10;

impl ReadErrors {
    /// `None` when there is nothing wrong.
    pub(crate) fn new(errors: Vec<ReadError>) -> Option<Self> {
        if errors.is_empty() { None } else { Some(Self(errors)) }
    }

    /// The errors in the order of reading.
    #[must_use]
    pub fn as_slice(&self) -> &[ReadError] {
        &self.0
    }
}

impl fmt::Display for ReadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{error} [{}]", error.reason())?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl std::error::Error for ReadErrors {}
