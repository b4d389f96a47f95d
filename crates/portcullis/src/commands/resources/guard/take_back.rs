//! Puts the files back, byte for byte as they were, and never over what somebody else has written.

use std::fs;
use std::io;
use std::path::Path;

use super::record::{Held, NAME, Record};
use crate::commands::certs::lock;
use crate::commands::resources::commit::commit_with;
use crate::commands::resources::folder::FolderArgs;
use crate::exit::{Exit, Failure};

/// The files of a change, as they are now.
pub(super) struct Change {
    /// As the change made them.
    pub(super) changed: Vec<String>,
    /// As they were before it.
    pub(super) put_back: Vec<String>,
    /// Otherwise.
    pub(super) foreign: Vec<String>,
}

impl Change {
    pub(super) fn look(record: &Record, folder: &Path) -> Self {
        let mut found = Self { changed: Vec::new(), put_back: Vec::new(), foreign: Vec::new() };
        for (below, file) in &record.files {
            let path = folder.join(below);
            let is = |text: &Option<String>| match (fs::read(&path), text) {
                (Ok(now), Some(text)) => now == text.as_bytes(),
                (Err(error), None) => error.kind() == io::ErrorKind::NotFound,
                _ => false,
            };
            let list = if is(&file.after) {
                &mut found.changed
            } else if is(&file.before) {
                &mut found.put_back
            } else {
                &mut found.foreign
            };
            list.push(path.display().to_string());
        }
        found
    }

    /// Whether nothing is left of the change.
    pub(super) fn is_put_back(&self) -> bool {
        self.changed.is_empty() && self.foreign.is_empty()
    }
}

/// Takes the change back. On failure the recovery file stays, unless somebody else has changed the files.
pub(super) fn take_back(
    folder_args: &FolderArgs,
    folder: &Path,
    record: &Record,
    held: &Held,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    // A command that hangs with the lock must not keep clients cut off: the contents are compared in any case.
    let _lock = lock(folder).map_err(|failure| notes.push(format!("warning: {:#}", failure.error))).ok();
    let change = Change::look(record, folder);
    if !change.foreign.is_empty() {
        let files = change.foreign.join(", ");
        held.remove()?;
        let message = format!(
            "{files}: changed by somebody else since; nothing is written over it, and the change is NOT taken back. Correct it by hand"
        );
        return Err(Failure::message(Exit::NotTakenBack, message));
    }
    let (mut plan, modes) = record.reverse(folder);
    plan.files.retain(|path, _| change.changed.contains(path));
    if let Ok(now) = folder_args.read() {
        let (with, without) = (now.check_with(&plan).errors, now.check().errors);
        if let Some(error) = with.iter().find(|error| !without.contains(error)) {
            let message = format!(
                "with the former files the policies would not be valid any more ({error}), since others have changed meanwhile; the \
                 change is NOT taken back, and {NAME} stays. Correct the others, then run `portcullis apply --take-back`"
            );
            return Err(Failure::message(Exit::NotTakenBack, message));
        }
    }
    commit_with(&plan, &modes).map_err(|failure| {
        let message = format!(
            "the change is NOT taken back: {:#}. {NAME} stays; correct the cause, then run `portcullis apply --take-back`",
            failure.error
        );
        Failure::message(Exit::NotTakenBack, message)
    })?;
    held.remove()?;
    Ok(notes)
}
