//! The access log of a sidecar, read while it is written: the sidecar's own record of each connection.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Pause between two looks at something that is awaited.
pub(super) const POLL: Duration = Duration::from_millis(10);
/// A line must be there this long after the client has seen its connection end.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The fields of an access line that the demo uses.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Access {
    pub(super) decision: String,
    pub(super) reason: String,
    pub(super) mode: String,
    pub(super) transport: String,
    #[serde(rename = "src.identity")]
    pub(super) src_identity: Option<String>,
}

/// A log and how far it was read.
pub(super) struct Log {
    path: PathBuf,
    offset: u64,
    pending: Vec<Access>,
}

#[derive(Deserialize)]
struct Target {
    target: String,
}

impl Log {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, offset: 0, pending: Vec::new() }
    }

    /// The next access line; waits for it.
    pub(super) fn next(&mut self) -> anyhow::Result<Access> {
        let deadline = Instant::now() + LINE_TIMEOUT;
        loop {
            self.read()?;
            if !self.pending.is_empty() {
                return Ok(self.pending.remove(0));
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "no access line after {LINE_TIMEOUT:?} in {}",
                self.path.display()
            );
            thread::sleep(POLL);
        }
    }

    /// Access lines that were not consumed yet.
    pub(super) fn unread(&mut self) -> anyhow::Result<Vec<Access>> {
        self.read()?;
        Ok(std::mem::take(&mut self.pending))
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be incomplete.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.offset += whole as u64;
        for line in text.get(..whole).unwrap_or_default().lines() {
            if serde_json::from_str::<Target>(line).is_ok_and(|line| line.target == "access") {
                self.pending.push(serde_json::from_str(line)?);
            }
        }
        Ok(())
    }
}
