//! `audit.jsonl`: a line for each certificate, and for each refusal (R61). Never a token, never a key.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// So many refusals are written in a second; the others are counted in the next line. Certificates are always written.
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
    file: File,
    /// The last line is not whole, since the power or the disk failed; the next one must not become a part of it.
    torn: bool,
    window: Instant,
    written: u32,
    held_back: u64,
}

impl Audit {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().append(true).read(true).create(true).mode(0o600).open(path)?;
        let torn = is_torn(&mut file)?;
        Ok(Self { inner: Mutex::new(Inner { file, torn, window: Instant::now(), written: 0, held_back: 0 }) })
    }

    /// Writes a line about a step of a rotation.
    pub(crate) fn rotation(&self, phase: &'static str, detail: String, now_unix: i64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.write(&Entry {
            time: portcullis_tls::utc(now_unix),
            event: "rotation",
            call: "rotate-root",
            caller: "ca.sock".to_owned(),
            reason: Some(phase),
            detail: Some(detail),
            ..Entry::default()
        })
    }

    /// Writes a line about a certificate.
    pub(crate) fn issued(&self, entry: &Entry) -> io::Result<()> {
        self.lock().write(entry)
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
    /// In one write, so that lines stay whole.
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = if self.torn { vec![b'\n'] } else { Vec::new() };
        serde_json::to_writer(&mut line, entry)?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        self.torn = written.is_err();
        written
    }
}

/// Whether something stands behind the last line break.
fn is_torn(file: &mut File) -> io::Result<bool> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_first_of_a_second_are_counted_and_certificates_are_all_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let audit = Audit::open(&path).unwrap();
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
        Audit::open(&path).unwrap().issued(&entry).unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{whole}{}", &whole[..30])).unwrap();
        let audit = Audit::open(&path).unwrap();
        audit.issued(&entry).unwrap();
        audit.issued(&entry).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert_eq!((lines.count(), text.lines().count()), (3, 4), "{text}");
    }
}
