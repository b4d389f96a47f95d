//! The copy of the last valid set on disk, from which a restarted sidecar begins while the API server is away.
//!
//! One file, replaced as a whole. A copy that cannot be read as it was written is no copy: the sidecar waits for the server then.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::objects::{Kept, MAX_BYTES};

const FILE: &str = "kubernetes.json";
const NEW: &str = ".kubernetes.json.new";
/// Documents are strings in JSON, whose quotes are escaped.
const MAX_COPY: u64 = 2 * MAX_BYTES as u64;
/// Another one is not read.
const FORMAT: u32 = 1;

/// The file.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Copy {
    format: u32,
    /// Seconds since 1970.
    pub(crate) written_at: i64,
    pub(crate) objects: Vec<Kept>,
}

/// Why there is no usable copy, or none could be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {problem}", path.display())]
    Content { path: PathBuf, problem: String },
}

impl Copy {
    pub(crate) const fn new(written_at: i64, objects: Vec<Kept>) -> Self {
        Self { format: FORMAT, written_at, objects }
    }

    /// Replaces the copy. What is too large is not kept, and the copy before it is removed: an old set is worse than none.
    pub(crate) fn write(&self, folder: &Path) -> Result<(), CopyError> {
        let (path, new) = (folder.join(FILE), folder.join(NEW));
        let failed = |error| CopyError::Io { path: path.clone(), error };
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        if text.len() as u64 > MAX_COPY {
            fs::remove_file(&path).or_else(absent).map_err(failed)?;
            let problem = format!("{} bytes, and at most {MAX_COPY} are kept", text.len());
            return Err(CopyError::Content { path, problem });
        }
        fs::create_dir_all(folder).map_err(failed)?;
        // One that an interrupted write left behind may have another mode.
        fs::remove_file(&new).or_else(absent).map_err(failed)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        file.write_all(&text).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path)).map_err(failed)
    }

    /// The copy; `None` if there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, CopyError> {
        let path = folder.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CopyError::Io { path, error }),
        };
        let mut text = Vec::new();
        if let Err(error) = file.take(MAX_COPY).read_to_end(&mut text) {
            return Err(CopyError::Io { path, error });
        }
        match serde_json::from_slice::<Self>(&text) {
            Ok(copy) if copy.format == FORMAT => Ok(Some(copy)),
            Ok(copy) => Err(CopyError::Content { path, problem: format!("has format {}", copy.format) }),
            Err(error) => Err(CopyError::Content { path, problem: error.to_string() }),
        }
    }
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept() -> Kept {
        let [kind, namespace, name, document] = ["PeerAuthentication", "shop", "a", "{}"].map(str::to_owned);
        Kept { kind, namespace, name, document }
    }

    #[test]
    fn a_copy_is_read_as_it_was_written_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("made");
        assert!(Copy::read(&below).unwrap().is_none());
        fs::write(folder.path().join(NEW), "left behind").unwrap();
        Copy::new(7, vec![kept()]).write(&below).unwrap();
        let copy = Copy::read(&below).unwrap().unwrap();
        assert_eq!((copy.written_at, copy.objects), (7, vec![kept()]));
        let file = below.join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        for broken in [&text[..text.len() - 1], "", "{}", &text.replace("\"format\":1", "\"format\":2")] {
            fs::write(&file, broken).unwrap();
            assert!(matches!(Copy::read(&below), Err(CopyError::Content { .. })), "{broken}");
        }
    }
}
