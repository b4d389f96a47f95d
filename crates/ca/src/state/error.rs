//! Errors of the state.

use std::io;
use std::path::PathBuf;

use super::facts::IssuanceRefusal;
use super::joins::JoinRefusal;

/// Why a folder of state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process has locked it.
    #[error("{}: another CA runs on this folder; stop it first", .0.display())]
    Locked(PathBuf),
    /// A line cannot be read.
    #[error(
        "{}:{line}: damaged; restore it from a backup, or move the folder away to begin anew (then tokens that were used may be used again until they expire)",
        path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: u64,
    },
    /// A journal without its snapshot, or a snapshot without its journal.
    #[error(
        "{}: snapshot and journal do not go together, as when a backup was made while the CA ran, or not all of it was restored; restore the whole folder, or move it away to begin anew (then tokens that were used may be used again until they expire)",
        .0.display()
    )]
    Incomplete(PathBuf),
    /// The files hold less than was committed, since files were replaced or removed.
    #[error(
        "{}: it holds less than this CA has committed; files of the folder were replaced or removed. Put them back, or restart the CA to go on with what is there (then tokens that were used may be used again until they expire)",
        .0.display()
    )]
    Lost(PathBuf),
    /// An operation of the file system failed.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
}

/// Why something is not committed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// A check failed.
    #[error(transparent)]
    Refused(#[from] IssuanceRefusal),
    /// It cannot be written. The content of the disk is unknown then, so nothing is committed until [`Store::recover`] has read
    /// it again.
    ///
    /// [`Store::recover`]: super::Store::recover
    #[error("the state cannot be written, so nothing is issued until it can: {0}")]
    Broken(String),
}

/// Why a join token is not made, redeemed or revoked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// A check failed.
    #[error(transparent)]
    Refused(#[from] JoinRefusal),
    /// As [`CommitError::Broken`].
    #[error("the state cannot be written, so nobody joins until it can: {0}")]
    Broken(String),
}

impl From<CommitError> for JoinError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Broken(why) => Self::Broken(why),
            // Nothing that concerns certificates is checked for a join token.
            CommitError::Refused(refusal) => Self::Broken(refusal.to_string()),
        }
    }
}
