//! The files: a snapshot that names a generation, and that generation's journal.
//!
//! A new snapshot is on disk under its name before the journal of its generation is begun, and the old journal is removed
//! last. Whichever step a crash cuts off, the snapshot in place and the journal of its generation are the whole state. Files
//! that do not match were copied or restored one by one. They are refused, since some committed records would be lost.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::error::StateError;
use super::frame;
use super::memory::{Image, Memory, Record};
use crate::files::{Private, write};

const SNAPSHOT: &str = "snapshot";
const LOCK: &str = "lock";
const JOURNAL: &str = "journal.";

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    version: u32,
    generation: u64,
    image: Image,
}

/// The open files of a folder that this process has locked.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    generation: u64,
    file: File,
    length: u64,
    /// Held until this is dropped, and by the kernel if we are killed.
    _lock: File,
}

impl Journal {
    /// Locks the folder and reads its content.
    pub(super) fn open(folder: &Path) -> Result<(Self, Memory), StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io { path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let lock_path = folder.join(LOCK);
        let lock = private().append(true).open(&lock_path).map_err(failed(&lock_path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(StateError::Locked(folder.to_owned())),
            Err(error) => return Err(failed(&lock_path)(error.into())),
        }
        let Loaded { generation, file, length, memory } = load(folder)?;
        Ok((Self { folder: folder.to_owned(), generation, file, length, _lock: lock }, memory))
    }

    /// Reads the folder again after a failed write, and goes on with another generation of both files.
    pub(super) fn recover(&mut self) -> Result<Memory, StateError> {
        let Loaded { generation, file, length, memory } = load(&self.folder)?;
        // Committed records are in the journal that was appended to, or in a snapshot that was made of it.
        if generation < self.generation || (generation == self.generation && length < self.length) {
            return Err(StateError::Lost(journal_path(&self.folder, self.generation)));
        }
        if generation > self.generation {
            // All that was committed is in its snapshot.
            self.length = 0;
        }
        // The length stays that of what was committed: what else is in the file may be in memory only.
        (self.generation, self.file) = (generation, file);
        if let Err(error) = self.compact(memory.image()) {
            return Err(StateError::Io { path: self.folder.clone(), error });
        }
        Ok(memory)
    }

    /// Writes a batch, and returns when it is on disk.
    pub(super) fn append(&mut self, batch: &[Record]) -> io::Result<()> {
        let line = frame::write(&batch)?;
        self.file.write_all(&line)?;
        self.file.sync_data()?;
        self.length = self.length.saturating_add(line.len() as u64);
        Ok(())
    }

    /// From here on everything is appended to this file, and fails as that does.
    #[cfg(test)]
    pub(super) fn divert(&mut self, file: File) {
        self.file = file;
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Writes the state as a snapshot, and begins an empty journal.
    pub(super) fn compact(&mut self, image: Image) -> io::Result<()> {
        let generation = self.generation.saturating_add(1);
        let snapshot = frame::write(&Snapshot { version: 1, generation, image })?;
        write(&self.folder.join(SNAPSHOT), &snapshot, Private::Yes, true).map_err(io::Error::other)?;
        self.file = begin(&self.folder, &journal_path(&self.folder, generation), 0)?;
        let old = journal_path(&self.folder, self.generation);
        (self.generation, self.length) = (generation, 0);
        fs::remove_file(old)
    }
}

/// The content of a folder, with the journal open behind its last complete line.
struct Loaded {
    generation: u64,
    file: File,
    length: u64,
    memory: Memory,
}

/// Reads a folder that is locked, and removes what a crash has left in it.
fn load(folder: &Path) -> Result<Loaded, StateError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| StateError::Io { path, error }
    };
    let snapshot_path = folder.join(SNAPSHOT);
    let (generation, mut memory) = match fs::read(&snapshot_path) {
        Ok(file) => read_snapshot(&file).ok_or(StateError::Damaged { path: snapshot_path, line: 1 })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0, Memory::default()),
        Err(error) => return Err(failed(&snapshot_path)(error)),
    };
    let others = others(folder, generation).map_err(failed(folder))?;
    let path = journal_path(folder, generation);
    // A step of `compact` that was cut off leaves the journal before it. Nothing else does; and what a later one says is
    // not to be lost by removing it.
    if let Some(later) = others.later {
        return Err(StateError::Incomplete(journal_path(folder, later)));
    }
    if generation > 0 && !others.before && !path.exists() {
        return Err(StateError::Incomplete(path));
    }
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(&path)(error)),
    };
    let length = replay(&content, &mut memory).map_err(|line| StateError::Damaged { path: path.clone(), line })?;
    let file = begin(folder, &path, length).map_err(failed(&path))?;
    // Last: until then they show that the journal may be missing.
    others.leftover.iter().try_for_each(fs::remove_file).map_err(failed(folder))?;
    Ok(Loaded { generation, file, length, memory })
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

fn journal_path(folder: &Path, generation: u64) -> PathBuf {
    folder.join(format!("{JOURNAL}{generation}"))
}

fn read_snapshot(file: &[u8]) -> Option<(u64, Memory)> {
    let Snapshot { version: 1, generation, image } = frame::read(file.strip_suffix(b"\n")?)? else {
        return None;
    };
    Some((generation, Memory::from_image(image)?))
}

/// Replays every complete line. Returns their total length, or the number of the damaged line. Only the last line may be
/// damaged, since its batch was never acknowledged.
fn replay(content: &[u8], memory: &mut Memory) -> Result<u64, u64> {
    let mut length: u64 = 0;
    let mut lines = content.split_inclusive(|byte| *byte == b'\n').peekable();
    let mut number: u64 = 0;
    while let Some(line) = lines.next() {
        number = number.saturating_add(1);
        let Some(batch) = line.strip_suffix(b"\n").and_then(frame::read::<Vec<Record>>) else {
            return if lines.peek().is_none() { Ok(length) } else { Err(number) };
        };
        for record in batch {
            memory.replay(record).ok_or(number)?;
        }
        length = length.saturating_add(line.len() as u64);
    }
    Ok(length)
}

/// Opens a journal for appending behind its whole lines.
fn begin(folder: &Path, path: &Path, length: u64) -> io::Result<File> {
    let file = private().append(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// The files of a folder besides a snapshot and its journal.
#[derive(Default)]
struct OtherFiles {
    /// Left behind by a crash: journals of earlier generations, and drafts.
    leftover: Vec<PathBuf>,
    /// Whether the journal of the generation before is there.
    before: bool,
    /// A generation whose snapshot is not the one that is here.
    later: Option<u64>,
}

fn others(folder: &Path, own: u64) -> io::Result<OtherFiles> {
    let mut others = OtherFiles::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        match name.strip_prefix(JOURNAL).and_then(|number| number.parse::<u64>().ok()) {
            Some(number) if number > own => others.later = Some(number),
            Some(number) if number < own => {
                others.before |= number.checked_add(1) == Some(own);
                others.leftover.push(entry.path());
            }
            None if name.starts_with(&format!(".{SNAPSHOT}.")) => others.leftover.push(entry.path()),
            _ => {}
        }
    }
    Ok(others)
}
