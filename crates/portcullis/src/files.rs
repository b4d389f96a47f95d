//! Reading policy files named on the command line, as the proxy reads its policy folder.
//!
//! What `validate` accepts must be what `proxy` accepts, so the folder rules (links, dot names, sizes, empty files) are
//! those of `portcullis-reload`. What cannot be read is a finding like any other: one run shows them all.

use std::collections::HashSet;
use std::path::PathBuf;

use portcullis_policy::{Diagnostic, Source};
use portcullis_reload::ReadError;

/// The files, and what was wrong with reading them.
#[derive(Debug, Default)]
pub(crate) struct Policies {
    pub(crate) sources: Vec<Source>,
    pub(crate) errors: Vec<Diagnostic>,
}

impl Policies {
    /// Reads files as they are named, and folders with everything below them.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let mut policies = Self::default();
        let mut seen = HashSet::new();
        for path in paths {
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
}

fn unreadable(error: &ReadError) -> Diagnostic {
    let file = error.path().display().to_string();
    let message = error.to_string();
    // The path has a field of its own.
    let message = message.strip_prefix(&format!("{file}: ")).unwrap_or(&message).to_owned();
    Diagnostic { file, line: 1, column: 1, field: String::new(), reason: error.reason(), message }
}
