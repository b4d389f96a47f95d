//! Committing: many callers, one file, and no more waiting for the disk than there must be.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use portcullis_identity::SpiffeId;

use super::facts::{Identity, Issuance, Refusal, Report};
use super::instances::Instance;
use super::journal::Journal;
use super::memory::{Memory, Record};
use crate::csr::KeyHash;
use crate::token::TokenNumber;

/// How the state is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A journal that is longer than this many bytes is replaced by a snapshot.
    pub compact_above: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { compact_above: 4 << 20 }
    }
}

/// Why a folder of state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Somebody else has it.
    #[error("{}: another CA runs on this folder; stop it first", .0.display())]
    Locked(PathBuf),
    /// What is written makes no sense.
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
    /// The system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Why something is not committed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommitError {
    /// It must not be.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It cannot be written; nothing is from here on, since nobody knows what is on the disk. A restart reads that again.
    #[error("the state cannot be written, so nothing is issued until the CA is restarted: {0}")]
    Broken(String),
}

/// The state of a CA in its folder. Callers may come from any thread; a call returns when the disk has it.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    /// A batch is on disk, or writing has failed.
    written: Condvar,
    options: Options,
}

#[derive(Debug)]
struct Inner {
    memory: Memory,
    /// `None` while one of the callers writes with it.
    journal: Option<Journal>,
    pending: Vec<Record>,
    /// How many records were ever pending, and how many of them are on disk.
    begun: u64,
    done: u64,
    broken: Option<String>,
}

impl Store {
    /// Takes the folder for this process, and reads what is in it.
    ///
    /// # Errors
    /// If somebody else has it, or it cannot be read.
    pub fn open(folder: &Path, options: Options) -> Result<Self, StateError> {
        let (journal, memory) = Journal::open(folder)?;
        let inner = Inner { memory, journal: Some(journal), pending: Vec::new(), begun: 0, done: 0, broken: None };
        Ok(Self { inner: Mutex::new(inner), written: Condvar::new(), options })
    }

    /// Whether a token has served already, or may have: of those that ended long ago only the last end of each day is remembered.
    #[must_use]
    pub fn is_used(&self, number: TokenNumber, expires_unix: i64) -> bool {
        self.lock().memory.is_used(number, expires_unix)
    }

    /// What is known of each identity.
    #[must_use]
    pub fn identities(&self) -> BTreeMap<SpiffeId, Identity> {
        self.lock().memory.identities().clone()
    }

    /// What is known of each instance, by the key of its first certificate.
    #[must_use]
    pub fn instances(&self) -> BTreeMap<KeyHash, Instance> {
        self.lock().memory.instances().clone()
    }

    /// Why nothing can be written any more, if so.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Whether [`Self::commit`] would refuse this now: to save the work of signing.
    ///
    /// # Errors
    /// As `commit`.
    pub fn check(&self, issuance: &Issuance, now_unix: i64) -> Result<(), CommitError> {
        let inner = self.lock();
        inner.is_sound()?;
        Ok(inner.memory.check(issuance, now_unix)?)
    }

    /// Uses up the token and notes who holds the key, in one step that happens wholly or not at all. It waits for the disk.
    ///
    /// # Errors
    /// If the token was used, another ID holds the key, or it cannot be written. Then nothing may be handed out.
    pub fn commit(&self, issuance: &Issuance, now_unix: i64) -> Result<(), CommitError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        inner.memory.check(issuance, now_unix)?;
        let record = inner.memory.issued(issuance, now_unix);
        self.write(inner, record, now_unix)
    }

    /// Notes which bundles an instance uses. It waits for the disk if that is news.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn told(&self, report: &Report, now_unix: i64) -> Result<(), CommitError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        match inner.memory.told(report, now_unix) {
            Some(record) => self.write(inner, record, now_unix),
            None => Ok(()),
        }
    }

    /// Puts a record behind those that wait. Whoever finds the journal free writes them all; the others wait for that.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, record: Record, now_unix: i64) -> Result<(), CommitError> {
        inner.pending.push(record);
        inner.begun = inner.begun.saturating_add(1);
        let mine = inner.begun;
        loop {
            if inner.done >= mine {
                return Ok(());
            }
            inner.is_sound()?;
            let Some(mut journal) = inner.journal.take() else {
                inner = self.written.wait(inner).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let batch = std::mem::take(&mut inner.pending);
            let begun = inner.begun;
            drop(inner);
            let result = journal.append(&batch);
            inner = self.lock();
            match result {
                Ok(()) => inner.done = begun,
                Err(error) => inner.broken = Some(error.to_string()),
            }
            if inner.broken.is_none() && journal.length() > self.options.compact_above {
                inner.compact(&mut journal, now_unix);
            }
            inner.journal = Some(journal);
            self.written.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_sound(&self) -> Result<(), CommitError> {
        self.broken.clone().map_or(Ok(()), |why| Err(CommitError::Broken(why)))
    }

    /// What waits is in the snapshot already; that it comes into the new journal once more does no harm.
    fn compact(&mut self, journal: &mut Journal, now_unix: i64) {
        self.memory.forget(now_unix);
        if let Err(error) = journal.compact(self.memory.image()) {
            self.broken = Some(error.to_string());
        }
    }
}
