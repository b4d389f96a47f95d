//! `audit.jsonl`: a line for each certificate, and for each refusal. Never a token, never a key.
//!
//! A line about a certificate or a rotation is on disk (fsync) before it takes effect, so a power cut never leaves a
//! certificate without its line. A refusal is written in one call and not synced: it grants nothing, and syncing would let
//! unauthenticated callers keep the disk busy. They also cannot fill the disk: see [`SizeLimit`].

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::audit_file::{AuditFile, SizeLimit};

/// The most refusals written per second; the rest are counted in the next line. Certificates are always written.
const REFUSALS_PER_SECOND: u32 = 20;

/// One line. Fields that do not apply are left out.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// `issued`, `refused` or `rotation`.
    pub(crate) event: &'static str,
    /// The method that was called.
    pub(crate) call: &'static str,
    /// Address and port of the caller.
    pub(crate) caller: String,
    /// `token` or `svid`: what the caller proved its identity with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_after: Option<String>,
    /// SHA-256 of the public key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_type: Option<&'static str>,
    /// Stable class of why it was refused; for a rotation the phase that begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// How many refusals before this line were not written.
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) held_back: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Entry {
    pub(crate) fn new(event: &'static str, call: &'static str, caller: SocketAddr, now_unix: i64) -> Self {
        let (time, caller) = (portcullis_tls::utc(now_unix), caller.to_string());
        Self { time, event, call, caller, ..Self::default() }
    }
}

/// The open file.
pub(crate) struct Audit {
    inner: Mutex<Inner>,
}

struct Inner {
    file: AuditFile,
    window: Instant,
    written: u32,
    held_back: u64,
}

impl Audit {
    /// Opens it, behind what is there.
    pub(crate) fn open(path: &Path, limit: SizeLimit) -> io::Result<Self> {
        let file = AuditFile::open(path, limit)?;
        Ok(Self { inner: Mutex::new(Inner { file, window: Instant::now(), written: 0, held_back: 0 }) })
    }

    /// Reopens the file if it was moved away or removed, for example by `logrotate`. Returns whether it was.
    pub(crate) fn reopen(&self) -> io::Result<bool> {
        self.lock().file.reopen()
    }

    /// Writes a line about a step of a rotation, to the disk.
    pub(crate) fn rotation(&self, phase: &'static str, detail: String, now_unix: i64) -> io::Result<()> {
        self.durable(&Entry {
            time: portcullis_tls::utc(now_unix),
            event: "rotation",
            call: "rotate-root",
            caller: "ca.sock".to_owned(),
            reason: Some(phase),
            detail: Some(detail),
            ..Entry::default()
        })
    }

    /// Writes a line about a certificate, to the disk.
    pub(crate) fn issued(&self, entry: &Entry) -> io::Result<()> {
        self.durable(entry)
    }

    fn durable(&self, entry: &Entry) -> io::Result<()> {
        let file = self.lock().write(entry)?;
        // Others write meanwhile, and what waits for the disk at once goes there at once. A file that is put aside in between
        // was synced then.
        file.sync_data()
    }

    /// Writes a line about a refusal, unless there are too many. Says whether it did.
    pub(crate) fn refused(&self, mut entry: Entry, now: Instant) -> bool {
        let mut inner = self.lock();
        if now.saturating_duration_since(inner.window) >= Duration::from_secs(1) {
            (inner.window, inner.written) = (now, 0);
        }
        if inner.written >= REFUSALS_PER_SECOND {
            inner.held_back = inner.held_back.saturating_add(1);
            return false;
        }
        inner.written = inner.written.saturating_add(1);
        entry.held_back = std::mem::take(&mut inner.held_back);
        if let Err(error) = inner.write(&entry) {
            tracing::error!(%error, "the audit file cannot be written");
        }
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn write(&mut self, entry: &Entry) -> io::Result<Arc<File>> {
        self.file.append(&serde_json::to_vec(entry)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_first_of_a_second_are_counted_and_certificates_are_all_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(&path, crate::audit_file::SIZE_LIMIT).unwrap();
        let entry = |event| Entry::new(event, "CreateCertificate", ([127, 0, 0, 1], 1).into(), 1_800_000_000);
        let now = Instant::now();
        let written = (0..100).filter(|_| audit.refused(entry("refused"), now)).count();
        assert_eq!(written, 20);
        (0..50).for_each(|_| audit.issued(&entry("issued")).unwrap());
        assert!(audit.refused(entry("refused"), now + Duration::from_secs(2)));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 71);
        assert!(text.lines().last().unwrap().ends_with(r#""heldBack":80}"#), "{text}");
        assert_eq!(text.matches("heldBack").count(), 1);
    }

    #[test]
    fn what_a_power_cut_left_of_a_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let entry = Entry::new("issued", "CreateCertificate", ([127, 0, 0, 1], 1).into(), 1_800_000_000);
        Audit::open(&path, crate::audit_file::SIZE_LIMIT).unwrap().issued(&entry).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..30])).unwrap();
        let audit = Audit::open(&path, crate::audit_file::SIZE_LIMIT).unwrap();
        audit.issued(&entry).unwrap();
        audit.issued(&entry).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((lines.count(), text.lines().count()), (3, 4), "{text}");
    }
}
