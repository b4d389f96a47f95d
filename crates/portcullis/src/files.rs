//! Reading the input that a command line names: policy files as the proxy reads its policy folder, and single files; and the
//! failures of reading and writing.
//!
//! What `validate` accepts must be what `proxy` accepts, so the folder rules (links, dot names, sizes, empty files) are
//! those of `portcullis-reload`. An unreadable file is a finding like any other: one run reports them all.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use portcullis_ca::WriteError;
use portcullis_policy::{Diagnostic, Source};
use portcullis_reload::{MAX_FILE_BYTES, ReadError};

use crate::exit::{Exit, Failure};

/// What messages call standard input.
pub(crate) const STDIN: &str = "standard input";

/// `-` stands for standard input wherever a file can be named.
pub(crate) fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The policy files, and what was wrong with reading them.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) sources: Vec<Source>,
    pub(crate) errors: Vec<Diagnostic>,
}

impl Policies {
    /// Reads files as they are named, folders with everything below them, and standard input for `-`.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let mut policies = Self::default();
        let mut seen = HashSet::new();
        for path in paths {
            if is_stdin(path) {
                if seen.insert(path.clone()) {
                    policies.read_stdin();
                }
                continue;
            }
            let source = if path.is_dir() {
                portcullis_reload::FileSet::Folder(path.clone())
            } else {
                portcullis_reload::FileSet::Files(vec![path.clone()])
            };
            let reading = source.read();
            policies.errors.extend(reading.errors.iter().map(unreadable));
            for file in reading.files {
                // `-f policies -f policies/a.yaml` names one file twice; its resources are no duplicates.
                if seen.insert(file.path.canonicalize().unwrap_or_else(|_gone| file.path.clone())) {
                    let name = file.path.display().to_string();
                    policies.sources.push(Source { file: name, text: file.content.to_vec() });
                }
            }
        }
        policies
    }

    fn read_stdin(&mut self) {
        let mut text = Vec::new();
        // One byte more than is allowed shows that it is too large.
        let read = io::stdin().lock().take(MAX_FILE_BYTES + 1).read_to_end(&mut text);
        let error = match read {
            Ok(0) => ("empty-file", "is empty; a policy was expected on it".to_owned()),
            Ok(length) if length as u64 > MAX_FILE_BYTES => {
                ("file-too-large", format!("is larger than {MAX_FILE_BYTES} bytes"))
            }
            Ok(_) => return self.sources.push(Source { file: STDIN.to_owned(), text }),
            Err(error) => ("unreadable", error.to_string()),
        };
        let (reason, message) = error;
        self.errors.push(whole_file(STDIN.to_owned(), reason, message));
    }
}

fn unreadable(error: &ReadError) -> Diagnostic {
    let file = error.path().display().to_string();
    let message = match error {
        ReadError::Io { error, .. } if error.kind() == io::ErrorKind::NotFound => NOT_THERE.to_owned(),
        other => {
            let message = other.to_string();
            // The path has a field of its own.
            message.strip_prefix(&format!("{file}: ")).unwrap_or(&message).to_owned()
        }
    };
    whole_file(file, error.reason(), message)
}

/// A finding about a file that has no line to point at.
fn whole_file(file: String, reason: &'static str, message: String) -> Diagnostic {
    Diagnostic { file, line: 0, column: 0, field: String::new(), reason, message }
}

const NOT_THERE: &str = "there is no such file or folder; check the path";

/// Reads a text file that the command line names, or standard input for `-`; at most `limit` bytes.
///
/// # Errors
/// If it cannot be read: bad input, or no permission.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, Failure> {
    let shown = if is_stdin(path) { STDIN.to_owned() } else { path.display().to_string() };
    let read = if is_stdin(path) {
        read_limited(io::stdin().lock(), limit)
    } else {
        File::open(path).and_then(|file| read_limited(file, limit))
    };
    read.map_err(|error| unusable(&shown, &error, NOT_THERE))
}

/// As [`read_text`], for a file that need not be text.
///
/// # Errors
/// If it cannot be read: bad input, or no permission.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let shown = if is_stdin(path) { STDIN.to_owned() } else { path.display().to_string() };
    let read = if is_stdin(path) {
        bytes_limited(io::stdin().lock(), limit)
    } else {
        File::open(path).and_then(|file| bytes_limited(file, limit))
    };
    read.map_err(|error| unusable(&shown, &error, NOT_THERE))
}

/// The failure of reading an input file: its exit code is the same for every command.
pub(crate) fn unusable(shown: &str, error: &io::Error, not_there: &str) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => Failure::message(Exit::BadInput, format!("{shown}: {not_there}")),
        io::ErrorKind::PermissionDenied => Failure::message(Exit::NoPermission, format!("{shown}: {error}")),
        _ => Failure::message(Exit::BadInput, format!("{shown}: {error}")),
    }
}

/// The failure of writing an output file.
pub(crate) fn not_written(error: WriteError) -> Failure {
    let denied = matches!(&error, WriteError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
    Failure::new(if denied { Exit::NoPermission } else { Exit::Failure }, error)
}

fn read_limited(from: impl Read, limit: u64) -> io::Result<String> {
    String::from_utf8(bytes_limited(from, limit)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

fn bytes_limited(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// When a file was written last, in Unix time; none if that is not known.
pub(crate) fn written(path: &Path) -> Option<i64> {
    let since = std::fs::metadata(path).ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}
