//! Group commit: concurrent callers share one journal and one sync.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use portcullis_identity::SpiffeId;

use super::error::{CommitError, JoinError, StateError};
use super::facts::{Identity, Issuance, Report};
use super::instances::Instance;
use super::joins::JoinGrant;
use super::journal::Journal;
use super::memory::{Memory, Record};
use crate::csr::KeyHash;
use crate::join::{JoinNumber, SecretHash};
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

/// The state of a CA in its folder. Safe to call from any thread; a call returns once its record is on disk.
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
    /// How often writing has failed, and `done` at the last of these failures.
    failures: u64,
    done_at_failures: VecDeque<u64>,
}

/// A caller that waits for its record through more failures than these is told that writing failed, whatever became of the record.
const FAILURES_KEPT: usize = 64;

impl Store {
    /// Locks the folder for this process and reads its content.
    ///
    /// # Errors
    /// If another process has locked it, or it cannot be read.
    pub fn open(folder: &Path, options: Options) -> Result<Self, StateError> {
        let (journal, memory) = Journal::open(folder)?;
        let inner = Inner {
            memory,
            journal: Some(journal),
            pending: Vec::new(),
            begun: 0,
            done: 0,
            broken: None,
            failures: 0,
            done_at_failures: VecDeque::new(),
        };
        Ok(Self { inner: Mutex::new(inner), written: Condvar::new(), options })
    }

    /// Whether a token was used, or may have been: of tokens that expired long ago only the last expiry of each day is kept.
    #[must_use]
    pub fn is_used(&self, number: TokenNumber, expires_unix: i64) -> bool {
        self.lock().memory.is_used(number, expires_unix)
    }

    /// The recorded identities.
    #[must_use]
    pub fn identities(&self) -> BTreeMap<SpiffeId, Identity> {
        self.lock().memory.identities().clone()
    }

    /// The recorded instances, by the key of their first certificate.
    #[must_use]
    pub fn instances(&self) -> BTreeMap<KeyHash, Instance> {
        self.lock().memory.instances().clone()
    }

    /// Why nothing can be written now, if so.
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

    /// Marks the token as used and records the holder of the key, atomically. Waits for the disk.
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

    /// Records the bundles that an instance reports. Waits for the disk if that changes anything.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn report(&self, report: &Report, now_unix: i64) -> Result<(), CommitError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        match inner.memory.report(report, now_unix) {
            Some(record) => self.write(inner, record, now_unix),
            None => Ok(()),
        }
    }

    /// The join tokens that are kept, with those that ended within the last hour.
    #[must_use]
    pub fn joins(&self) -> Vec<JoinGrant> {
        self.lock().memory.joins()
    }

    /// Keeps a new join token. Waits for the disk.
    ///
    /// # Errors
    /// If too many are kept, or it cannot be written.
    pub fn add_join(&self, grant: JoinGrant, now_unix: i64) -> Result<(), JoinError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        inner.memory.forget(now_unix);
        let record = inner.memory.add_join(grant)?;
        Ok(self.write(inner, record, now_unix)?)
    }

    /// Whether [`Self::join`] would refuse this now.
    ///
    /// # Errors
    /// As `join`.
    pub fn check_join(
        &self,
        number: JoinNumber,
        secret: &SecretHash,
        ids: &[SpiffeId],
        now_unix: i64,
    ) -> Result<JoinGrant, JoinError> {
        let inner = self.lock();
        inner.is_sound()?;
        Ok(inner.memory.check_join(number, secret, ids, now_unix)?)
    }

    /// Takes a use of a join token for some of its identities, atomically. Waits for the disk.
    ///
    /// # Errors
    /// If the token is unknown, has ended or is not for all of the identities, or it cannot be written. Then nothing may be handed out.
    pub fn join(
        &self,
        number: JoinNumber,
        secret: &SecretHash,
        ids: &[SpiffeId],
        now_unix: i64,
    ) -> Result<JoinGrant, JoinError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        let (grant, record) = inner.memory.join(number, secret, ids, now_unix)?;
        self.write(inner, record, now_unix)?;
        Ok(grant)
    }

    /// Revokes a join token. Waits for the disk.
    ///
    /// # Errors
    /// If there is none with this number, or it cannot be written.
    pub fn revoke_join(&self, number: JoinNumber, now_unix: i64) -> Result<(), JoinError> {
        let mut inner = self.lock();
        inner.is_sound()?;
        let record = inner.memory.revoke_join(number)?;
        Ok(self.write(inner, record, now_unix)?)
    }

    /// After a failed write: reads the files again as at a start, and goes on in a new snapshot and journal. Until that
    /// succeeds nothing is committed. Does nothing if nothing has failed.
    ///
    /// The files of before are not appended to any more: after a failed sync the kernel may show pages that are not on disk.
    ///
    /// # Errors
    /// If they cannot be read or written, or hold less than was committed.
    pub fn recover(&self) -> Result<(), StateError> {
        let mut inner = self.lock();
        if inner.broken.is_none() {
            return Ok(());
        }
        // It is put back under the lock under which the failure is noted; only another recovery has it.
        let Some(mut journal) = inner.journal.take() else { return Ok(()) };
        drop(inner);
        // Nothing changes the memory meanwhile: every call is refused.
        let read = journal.recover();
        let mut inner = self.lock();
        inner.journal = Some(journal);
        match read {
            Ok(memory) => {
                inner.memory = memory;
                inner.pending.clear();
                inner.broken = None;
                Ok(())
            }
            Err(error) => {
                inner.broken = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Queues a record. The caller that finds the journal free writes the whole queue; the others wait for it.
    fn write<'a>(&'a self, mut inner: MutexGuard<'a, Inner>, record: Record, now_unix: i64) -> Result<(), CommitError> {
        inner.pending.push(record);
        inner.begun = inner.begun.saturating_add(1);
        let (mine, failures) = (inner.begun, inner.failures);
        loop {
            if inner.failures != failures {
                // Counts of after the recovery say nothing of this record: what counts is the first failure that it has seen.
                let written = inner.done_at_failure(failures).is_some_and(|done| done >= mine);
                let why = inner.broken.clone().unwrap_or_else(|| "writing failed and works again".to_owned());
                return if written { Ok(()) } else { Err(CommitError::Broken(why)) };
            }
            if inner.done >= mine {
                return Ok(());
            }
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
                Err(error) => inner.failed(error.to_string()),
            }
            if inner.broken.is_none() && journal.length() > self.options.compact_above {
                inner.compact(&mut journal, now_unix);
            }
            inner.journal = Some(journal);
            self.written.notify_all();
        }
    }

    /// From here on everything is written to this file, and fails as that does, until [`Self::recover`].
    #[cfg(test)]
    pub(super) fn divert(&self, file: impl Fn() -> std::fs::File) {
        let mut inner = self.lock();
        loop {
            if let Some(journal) = &mut inner.journal {
                return journal.divert(file());
            }
            inner = self.written.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// How many records are on disk.
    #[cfg(test)]
    pub(super) fn lock_done(&self) -> u64 {
        self.lock().done
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
            self.failed(error.to_string());
        }
    }

    fn failed(&mut self, why: String) {
        self.broken = Some(why);
        self.failures = self.failures.saturating_add(1);
        self.done_at_failures.push_back(self.done);
        if self.done_at_failures.len() > FAILURES_KEPT {
            self.done_at_failures.pop_front();
        }
    }

    /// How many records were on disk when writing failed after `earlier` failures.
    fn done_at_failure(&self, earlier: u64) -> Option<u64> {
        let since = usize::try_from(self.failures.checked_sub(earlier)?).ok()?;
        let index = self.done_at_failures.len().checked_sub(since)?;
        self.done_at_failures.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_failure_it_is_known_what_was_written_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).unwrap();
        let mut inner = store.lock();
        assert_eq!(inner.done_at_failure(0), None);
        for done in [5, 9] {
            inner.done = done;
            inner.failed("full".to_owned());
        }
        // Who has begun to wait before the first, between both, and after them.
        assert_eq!([0, 1, 2].map(|earlier| inner.done_at_failure(earlier)), [Some(5), Some(9), None]);
        for done in 10..10 + u64::try_from(FAILURES_KEPT).unwrap() {
            inner.done = done;
            inner.failed("full".to_owned());
        }
        assert_eq!([0, 1, 2].map(|earlier| inner.done_at_failure(earlier)), [None, None, Some(10)]);
    }
}
