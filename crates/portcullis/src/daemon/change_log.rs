//! What changed while the process ran, for the page: policies and modes, certificates, and files that were refused. The last ones,
//! in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_api::{Change, Timestamp};
use portcullis_tls::{Clock, CredentialReader, utc};

/// More would not be read, and the log has them all.
const MAX_CHANGES: usize = 100;

/// The changes, the oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct ChangeLog(Arc<Mutex<VecDeque<Change>>>);

impl ChangeLog {
    /// Something changed now.
    pub(super) fn add(&self, what: String) {
        let at = Timestamp::from_unix(Clock::system().now_unix());
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A file that is broken is reported each time that it is read.
        if changes.back().is_some_and(|last| last.what == what) {
            return;
        }
        if changes.len() >= MAX_CHANGES {
            changes.pop_front();
        }
        changes.push_back(Change { at, what });
    }

    /// All of them, the oldest first.
    pub(super) fn list(&self) -> Vec<Change> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Adds each certificate that comes into force. Returns when there will be no other.
pub(super) async fn watch_certificates(changes: ChangeLog, reader: CredentialReader) {
    let (mut generations, mut known) = (reader.subscribe(), None);
    loop {
        if let Some(credentials) = reader.latest()
            && known.replace(credentials.generation()) != Some(credentials.generation())
        {
            changes.add(format!("certificate in force until {}", utc(credentials.not_after_unix())));
        }
        if generations.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_are_kept_and_a_repeated_one_is_not_added() {
        let log = ChangeLog::default();
        (0..MAX_CHANGES + 5).for_each(|n| {
            log.add(format!("change {n}"));
            log.add(format!("change {n}"));
        });
        let kept = log.list();
        assert_eq!((kept.len(), kept[0].what.as_str()), (MAX_CHANGES, "change 5"));
    }
}
