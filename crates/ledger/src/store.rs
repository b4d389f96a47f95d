//! The folder: one file for each workload, replaced as a whole, and a lock beside it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::file::{self, Saved, Unusable};
use crate::ledger::Ledger;

/// Only the sidecar may read it: it has addresses and names of clients.
const MODE: u32 = 0o600;

/// Where one workload's table is kept.
pub(crate) struct Store {
    folder: PathBuf,
    /// `NAMESPACE_NAME`; neither has an underscore in it.
    stem: String,
    workload: String,
    lock: Option<File>,
    is_read: bool,
}

/// Why the table is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("another process has {path} locked; give each sidecar of this workload a folder of its own", path = path.display())]
    Busy { path: PathBuf },
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl Store {
    pub(crate) fn new(folder: &Path, namespace: &str, name: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            stem: format!("{namespace}_{name}"),
            workload: format!("{namespace}/{name}"),
            lock: None,
            is_read: false,
        }
    }

    /// The file, for messages.
    pub(crate) fn file(&self) -> PathBuf {
        self.path("ledger")
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", self.stem))
    }

    /// Takes the lock, and reads what is there unless that was done. A file that cannot be used is moved aside.
    pub(crate) fn open(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let locked = self.take_lock();
        // What cannot be written can still be read, but not what another process is writing.
        if !self.is_read && !matches!(locked, Err(StoreError::Busy { .. })) {
            self.is_read = true;
            if let Some(saved) = self.read() {
                ledger.merge(saved);
            }
        }
        self.lock = Some(locked?);
        Ok(())
    }

    fn take_lock(&self) -> Result<File, StoreError> {
        let path = self.path("lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(&path);
        let file = open.map_err(|source| failed("open", &path, source))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { path }),
            Err(error) => Err(StoreError::Io { what: "lock", path, source: error.into() }),
        }
    }

    fn read(&self) -> Option<Saved> {
        let path = self.file();
        let read = File::open(&path).map_err(Unusable::Io).and_then(|file| file::read(BufReader::new(file)));
        let error = match read {
            Ok(saved) => return Some(saved),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => error,
        };
        let aside = match &error {
            Unusable::Damaged { .. } => self.path("damaged"),
            Unusable::Newer(version) => self.path(&format!("version-{version}")),
            Unusable::Io(_) => self.path("unreadable"),
        };
        let moved = fs::rename(&path, &aside);
        let (file, aside) = (path.display(), aside.display());
        match moved {
            Ok(()) => {
                tracing::warn!(%file, %error, moved_to = %aside, "ledger: cannot use what was kept; starting anew")
            }
            Err(failed) => {
                tracing::warn!(%file, %error, %failed, "ledger: cannot use what was kept, nor move it aside; starting anew");
            }
        }
        None
    }

    /// Replaces the file.
    pub(crate) fn write(&mut self, ledger: &Ledger) -> Result<(), StoreError> {
        self.open(ledger)?;
        let (file, temporary) = (self.file(), self.path("tmp"));
        let written = self.write_temporary(ledger, &temporary);
        if written.is_err() {
            // On a full disk it would take the room that is missing.
            let _gone = fs::remove_file(&temporary);
        }
        written.map_err(|source| failed("write", &temporary, source))?;
        fs::rename(&temporary, &file).map_err(|source| failed("replace", &file, source))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| failed("sync", &self.folder, source))
    }

    fn write_temporary(&self, ledger: &Ledger, temporary: &Path) -> io::Result<()> {
        // One may be left of a process that was killed. Not truncated, since it could be a link to somewhere else.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(temporary)?;
        let mut out = BufWriter::with_capacity(64 * 1024, file);
        file::write(ledger, &self.workload, &mut out)?;
        out.flush()?;
        out.get_ref().sync_all()
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { what, path: path.to_owned(), source }
}
