//! The audit file: whole lines are appended, synced where required, and the file is rotated at a size limit.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the file in the CA's folder.
pub(crate) const AUDIT: &str = "audit.jsonl";

/// The size limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SizeLimit {
    /// A file that a line would make longer than this becomes `audit.jsonl.1`, that one `.2`, and so on.
    pub(crate) bytes: u64,
    /// How many older files are kept.
    pub(crate) older: u32,
}

/// Half a gibibyte in all: a day of nothing but refusals, or more than a million certificates.
pub(crate) const SIZE_LIMIT: SizeLimit = SizeLimit { bytes: 64 << 20, older: 7 };

/// The open file.
pub(crate) struct AuditFile {
    path: PathBuf,
    limit: SizeLimit,
    file: Arc<File>,
    length: u64,
    /// The last line may be half written.
    last_line_torn: bool,
}

impl AuditFile {
    /// Opens it, behind what is there.
    pub(crate) fn open(path: &Path, limit: SizeLimit) -> io::Result<Self> {
        let (file, length) = open(path)?;
        Ok(Self { path: path.to_owned(), limit, file, length, last_line_torn: false })
    }

    /// Reopens the file if it was moved away or removed, for example by `logrotate`. Returns whether it was.
    pub(crate) fn reopen(&mut self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        let is_same = |there: Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
        if self.path.metadata().is_ok_and(is_same) {
            return Ok(false);
        }
        self.renew()?;
        Ok(true)
    }

    /// Appends a line, in one write so that it stays whole. What `sync_data` of the answer waits for has it on disk.
    pub(crate) fn append(&mut self, line: &[u8]) -> io::Result<Arc<File>> {
        let mut whole = Vec::with_capacity(line.len().saturating_add(2));
        if self.last_line_torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(line);
        whole.push(b'\n');
        let length = whole.len() as u64;
        if self.length > 0 && self.length.saturating_add(length) > self.limit.bytes {
            self.rotate()?;
        }
        self.length = self.length.saturating_add(length);
        let written = (&*self.file).write_all(&whole);
        self.last_line_torn = written.is_err();
        written.map(|()| Arc::clone(&self.file))
    }

    /// Rotates the files. A rotation that was interrupted is repeated.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (0..self.limit.older).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number.saturating_add(1))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.renew()
    }

    fn renew(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        (self.file, self.length) = open(&self.path)?;
        self.last_line_torn = false;
        Ok(())
    }
}

/// `audit.jsonl`, and those before it.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Opens a file to write behind what it has, and says how long it is. Half a line, which a power cut may leave, is ended.
fn open(path: &Path) -> io::Result<(Arc<File>, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let mut length = file.metadata()?.len();
    if length == 0 {
        // So that its name is on the disk as well.
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            File::open(folder)?.sync_all()?;
        }
    } else {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            length = length.saturating_add(1);
        }
    }
    Ok((Arc::new(file), length))
}

/// The audit files of a CA's folder, oldest first.
#[must_use]
pub fn audit_files(dir: &Path) -> Vec<PathBuf> {
    let path = dir.join(AUDIT);
    (0..=SIZE_LIMIT.older).rev().map(|number| numbered(&path, number)).filter(|path| path.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_has_an_end_and_so_has_their_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUDIT);
        let limit = SizeLimit { bytes: 19, older: 2 };
        let mut file = AuditFile::open(&path, limit).unwrap();
        // Three lines of six bytes fit into one.
        for count in 1..=10 {
            file.append(format!("{count:05}").as_bytes()).unwrap();
            let all: Vec<_> = audit_files(folder.path()).iter().flat_map(|path| lines(path)).collect();
            let first = if count == 10 { 4 } else { 1 };
            let expected: Vec<_> = (first..=count).map(|count| format!("{count:05}")).collect();
            assert_eq!(all, expected, "oldest first, and nothing is lost until there are three whole files");
        }
        let names: Vec<_> =
            audit_files(folder.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]);
        // A start goes on where it was.
        let mut file = AuditFile::open(&path, limit).unwrap();
        (11..=13).for_each(|count| drop(file.append(format!("{count:05}").as_bytes()).unwrap()));
        assert_eq!((lines(&path).len(), lines(&numbered(&path, 1)).len()), (1, 3));
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let (path, away) = (folder.path().join(AUDIT), folder.path().join("away"));
        let mut file = AuditFile::open(&path, SIZE_LIMIT).unwrap();
        file.append(b"1").unwrap();
        assert!(!file.reopen().unwrap());
        fs::rename(&path, &away).unwrap();
        file.append(b"2").unwrap();
        assert!(file.reopen().unwrap());
        file.append(b"3").unwrap();
        assert_eq!((lines(&away), lines(&path)), (vec!["1".to_owned(), "2".to_owned()], vec!["3".to_owned()]));
    }

    #[test]
    fn half_a_line_that_a_power_cut_left_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUDIT);
        fs::write(&path, "{\"time\":\"20").unwrap();
        AuditFile::open(&path, SIZE_LIMIT).unwrap().append(b"{}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"time\":\"20\n{}\n");
    }

    /// A full disk is not to be had here; `/dev/full` answers as one does.
    #[test]
    fn a_failed_write_is_reported_and_does_not_corrupt_the_next_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(AUDIT);
        let mut file = AuditFile::open(&path, SIZE_LIMIT).unwrap();
        let good = std::mem::replace(&mut file.file, Arc::new(File::options().write(true).open("/dev/full").unwrap()));
        assert!(file.append(b"lost").is_err());
        file.file = good;
        file.append(b"{}").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "\n{}\n");
    }
}
