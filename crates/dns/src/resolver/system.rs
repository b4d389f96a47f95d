//! The system's files, read again when they change: a container that joins another network gets other servers.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::settings::Settings;
use crate::error::DnsError;

/// How often the files are looked at, at most.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The settings of the system.
pub(super) struct System {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    settings: Arc<Settings>,
    /// What both files looked like when they were read.
    seen: [Option<Stamp>; 2],
    checked: Option<Instant>,
    /// A failure to read them again has been logged.
    reported: bool,
}

/// What changes with a file: device, inode, size and time of change.
type Stamp = (u64, u64, u64, i64, i64);

impl System {
    pub(super) fn read() -> Result<Self, DnsError> {
        Self::from_files("/etc/resolv.conf".into(), "/etc/hosts".into())
    }

    fn from_files(resolv_conf: PathBuf, hosts: PathBuf) -> Result<Self, DnsError> {
        let seen = [stamp(&resolv_conf), stamp(&hosts)];
        let settings = Arc::new(Settings::parse(&text(&resolv_conf)?, &text(&hosts)?));
        let current = Mutex::new(Current { settings, seen, checked: None, reported: false });
        Ok(Self { resolv_conf, hosts, current })
    }

    /// The settings in force. Files that cannot be read any more leave the last ones.
    pub(super) fn settings(&self) -> Arc<Settings> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if current.checked.is_some_and(|checked| now.duration_since(checked) < CHECK_INTERVAL) {
            return Arc::clone(&current.settings);
        }
        current.checked = Some(now);
        let seen = [stamp(&self.resolv_conf), stamp(&self.hosts)];
        if seen != current.seen {
            match text(&self.resolv_conf).and_then(|resolv_conf| Ok((resolv_conf, text(&self.hosts)?))) {
                Ok((resolv_conf, hosts)) => {
                    current.settings = Arc::new(Settings::parse(&resolv_conf, &hosts));
                    current.seen = seen;
                    current.reported = false;
                }
                Err(error) if !current.reported => {
                    tracing::warn!(%error, "the settings of name lookups cannot be read again; the last ones stay in force");
                    current.reported = true;
                }
                Err(_reported) => {}
            }
        }
        Arc::clone(&current.settings)
    }
}

/// The file's text; empty if there is none.
fn text(path: &Path) -> Result<String, DnsError> {
    let read =
        fs::read(path).or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(Vec::new()) } else { Err(error) });
    let bytes = read.map_err(|source: io::Error| DnsError::Unreadable { path: path.to_owned(), source })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn stamp(path: &Path) -> Option<Stamp> {
    let of = |file: Metadata| (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
    fs::metadata(path).ok().map(of)
}
