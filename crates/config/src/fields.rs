//! Shared by all sections: optional sections, and paths relative to the folder of the file.

use std::path::{Path, PathBuf};

use portcullis_yaml::{Cursor, Fields, Problems};

use crate::value;

/// Reads the sections of a configuration file; each section adds its own methods.
pub(crate) struct SectionReader<'a> {
    folder: &'a Path,
}

impl<'a> SectionReader<'a> {
    /// Relative paths are taken from `folder`.
    pub(crate) const fn new(folder: &'a Path) -> Self {
        Self { folder }
    }

    pub(crate) fn path(&self, at: &Cursor<'_>, problems: &mut Problems) -> Option<PathBuf> {
        let text = at.string(problems)?;
        if text.is_empty() || text.contains('\0') {
            value::invalid(at, "is not a path", problems);
            return None;
        }
        Some(self.folder.join(text))
    }
}

/// Reads a section, or takes the default if it is absent.
pub(crate) fn section<T>(
    fields: &Fields<'_>,
    name: &str,
    default: T,
    problems: &mut Problems,
    read: impl FnOnce(&Cursor<'_>, &mut Problems) -> Option<T>,
) -> Option<T> {
    match fields.get(name) {
        None => Some(default),
        Some(at) => read(&at, problems),
    }
}
