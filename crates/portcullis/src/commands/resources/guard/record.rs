//! The recovery file: what a guarded change has to know if its command does not live to its end.
//!
//! It stands beside the policies, with a name that sidecars do not read, is written and synced before the first policy changes, and goes
//! when the change is kept or taken back. While the command lives, it holds a lock on the file; so others can tell a change that is watched
//! from one that was left behind.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use portcullis_api::Timestamp;
use portcullis_manifest::{FileChange, Plan};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::{Exit, Failure};

/// Its name. Names that begin with a dot are not read as policies.
pub(super) const NAME: &str = portcullis_report::guard::RECOVERY_FILE;
/// More than the largest policy folder, twice, with escapes.
const MAX_BYTES: u64 = 512 << 20;
/// Another command may hold the lock for a moment, to see whether it is held.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A guarded change.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    /// Of this format.
    pub(super) version: u32,
    pub(super) started_at: Timestamp,
    /// When it ends at the latest.
    pub(super) until: Timestamp,
    /// The process that watches it.
    pub(super) pid: u32,
    pub(super) guard_seconds: u64,
    pub(super) max_denied: u64,
    pub(super) load_seconds: u64,
    pub(super) silence_seconds: u64,
    pub(super) keep_unanswered: bool,
    /// The resources that change, as kubectl calls them.
    pub(super) resources: Vec<String>,
    /// By path below the folder.
    pub(super) files: BTreeMap<String, RecordedFile>,
    pub(super) sidecars: Vec<RecordedSidecar>,
}

/// The format that this version writes.
const VERSION: u32 = 1;

/// A file that changes.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct RecordedFile {
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
    /// Its permissions before.
    pub(super) mode: Option<u32>,
}

/// A sidecar that is watched.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordedSidecar {
    pub(super) address: String,
    /// When its process started, and the last connection that had ended before the change.
    pub(super) started_at: Timestamp,
    pub(super) seen: u64,
}

/// The file while this process holds it.
#[derive(Debug)]
pub(super) struct Held {
    path: PathBuf,
    _locked: File,
}

/// A recovery file that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// Its command lives.
    Watched(Record),
    /// Its command has ended without an end.
    Left(Record),
    /// It cannot be read, and why.
    Unreadable(String),
}

impl Record {
    pub(super) fn files(plan: &Plan, folder: &Path) -> BTreeMap<String, RecordedFile> {
        let file = |(path, change): (&String, &FileChange)| {
            let below = Path::new(path).strip_prefix(folder).unwrap_or_else(|_| Path::new(path));
            let mode = fs::metadata(path).ok().map(|known| known.permissions().mode() & 0o777);
            let FileChange { before, after } = change.clone();
            (below.display().to_string(), RecordedFile { before, after, mode })
        };
        plan.files.iter().map(file).collect()
    }

    /// What takes the change back, and the permissions of what it brings back.
    pub(super) fn reverse(&self, folder: &Path) -> (Plan, BTreeMap<String, u32>) {
        let (mut plan, mut modes) = (Plan::default(), BTreeMap::new());
        for (below, file) in &self.files {
            let path = folder.join(below).display().to_string();
            modes.extend(file.mode.map(|mode| (path.clone(), mode)));
            plan.files.insert(path, FileChange { before: file.after.clone(), after: file.before.clone() });
        }
        (plan, modes)
    }

    /// Writes the file, locked from its first byte on.
    pub(super) fn write(&self, folder: &Path) -> Result<Held, Failure> {
        let path = folder.join(NAME);
        let draft = folder.join(format!("{NAME}.{}", std::process::id()));
        let write = || -> io::Result<File> {
            let _left_by_a_killed_process = fs::remove_file(&draft);
            let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&draft)?;
            flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            serde_json::to_writer(&mut file, self).map_err(io::Error::from)?;
            file.flush()?;
            file.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(folder)?.sync_all()?;
            Ok(file)
        };
        match write() {
            Ok(file) => Ok(Held { path, _locked: file }),
            Err(error) => {
                let _left = fs::remove_file(&draft);
                let shown = path.display().to_string();
                Err(anyhow::Error::from(error).context(shown).context("the recovery file cannot be written").into())
            }
        }
    }

    /// The new record of a change that begins now.
    pub(super) const fn version() -> u32 {
        VERSION
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let record: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if record.version != VERSION {
            return Err(format!("it has version {}, and this program knows {VERSION}", record.version));
        }
        let is_below = |path: &String| {
            !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
        };
        match record.files.keys().find(|path| !is_below(path)) {
            Some(path) => Err(format!("{path:?} is not a path below the folder")),
            None => Ok(record),
        }
    }
}

impl Held {
    /// The change is over.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let context = || self.path.display().to_string();
        match fs::remove_file(&self.path) {
            // Somebody else has.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.with_context(context)?,
        }
        let folder = self.path.parent().unwrap_or_else(|| Path::new("."));
        Ok(File::open(folder).and_then(|folder| folder.sync_all()).with_context(context)?)
    }
}

/// Looks for a recovery file in a policy folder.
pub(super) fn find(folder: &Path) -> Option<Found> {
    let mut file = match File::open(folder.join(NAME)) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return None,
        Err(error) => return Some(Found::Unreadable(error.to_string())),
    };
    let record = match read(&mut file) {
        Ok(record) => record,
        Err(why) => return Some(Found::Unreadable(why)),
    };
    // Shared, so that two who look do not disturb each other; it ends with the file.
    Some(match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Found::Left(record),
        Err(_held) => Found::Watched(record),
    })
}

/// Takes over a change that was left behind. To be called with the folder locked.
pub(super) fn take_over(folder: &Path) -> Result<Option<(Record, Held)>, Failure> {
    let path = folder.join(NAME);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    for _ in 0..LOCK_TRIES {
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let record = read(&mut file).map_err(|why| unusable(&path, &why))?;
            return Ok(Some((record, Held { path, _locked: file })));
        }
        thread::sleep(LOCK_PAUSE);
    }
    let record = read(&mut file).map_err(|why| unusable(&path, &why))?;
    let message = format!(
        "process {} still watches this change; end it with SIGINT, which takes the change back, or wait until {}",
        record.pid, record.until
    );
    Err(Failure::message(Exit::Failure, message))
}

fn read(file: &mut File) -> Result<Record, String> {
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(|error| error.to_string())?;
    Record::parse(&text)
}

fn unusable(path: &Path, why: &str) -> Failure {
    let message = format!(
        "{}: this is no recovery file that can be used: {why}; compare the policies with their history, then remove it",
        path.display()
    );
    Failure::message(Exit::BadInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let file = RecordedFile { before: Some("a\n".to_owned()), after: None, mode: Some(0o640) };
        Record {
            version: VERSION,
            started_at: Timestamp::from_unix(1),
            until: Timestamp::from_unix(2),
            pid: 1,
            guard_seconds: 1,
            max_denied: 0,
            load_seconds: 1,
            silence_seconds: 1,
            keep_unanswered: false,
            resources: vec![],
            files: BTreeMap::from([("shop/a.yaml".to_owned(), file)]),
            sidecars: vec![],
        }
    }

    #[test]
    fn a_record_is_hidden_private_and_locked_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(find(path).is_none());
        let held = record().write(path).unwrap();
        assert_eq!(fs::metadata(path.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(find(path), Some(Found::Watched(found)) if found == record()));
        drop(held);
        assert!(matches!(find(path), Some(Found::Left(_))));
        let (found, held) = take_over(path).unwrap().unwrap();
        assert_eq!(found, record());
        assert!(matches!(find(path), Some(Found::Watched(_))), "the one that takes over watches it");
        held.remove().unwrap();
        assert!(find(path).is_none() && take_over(path).unwrap().is_none());
        assert_eq!(fs::read_dir(path).unwrap().count(), 0);
    }

    #[test]
    fn a_record_restores_below_its_folder_only() {
        let (plan, modes) = record().reverse(Path::new("p"));
        assert_eq!(plan.files["p/shop/a.yaml"], FileChange { before: None, after: Some("a\n".to_owned()) });
        assert_eq!(modes["p/shop/a.yaml"], 0o640);
        for bad in ["/etc/passwd", "../a.yaml", "a/../../b", "", "./a"] {
            let mut record = record();
            let file = record.files.pop_first().unwrap().1;
            record.files.insert(bad.to_owned(), file);
            let text = serde_json::to_vec(&record).unwrap();
            assert!(Record::parse(&text).is_err(), "{bad}");
        }
        let newer = Record { version: 2, ..record() };
        assert!(Record::parse(&serde_json::to_vec(&newer).unwrap()).unwrap_err().contains("version 2"));
    }
}
