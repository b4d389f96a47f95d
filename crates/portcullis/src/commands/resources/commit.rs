//! Writes a plan: all of its files, or none.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use portcullis_manifest::Plan;

use crate::exit::Failure;

/// A new content beside its file, under a name that the proxy does not read.
struct Draft {
    draft: PathBuf,
    target: PathBuf,
}

/// Puts the files in their places. Until every draft is on the disk, nothing is changed; a reader sees the old or the new content of each
/// file. If a file cannot be put in its place, those before it are put back.
pub(super) fn commit(plan: &Plan) -> Result<(), Failure> {
    commit_with(plan, &BTreeMap::new())
}

/// The same with the permissions of files that are not there now, by path.
pub(super) fn commit_with(plan: &Plan, modes: &BTreeMap<String, u32>) -> Result<(), Failure> {
    let mut drafts = Vec::new();
    for (path, change) in &plan.files {
        let Some(text) = &change.after else { continue };
        let target = resolved(Path::new(path));
        match stage(&target, text, modes.get(path).copied().unwrap_or(MODE)) {
            Ok(draft) => drafts.push(Draft { draft, target }),
            Err(error) => {
                discard(&drafts);
                return Err(anyhow::Error::from(error).context(target.display().to_string()).into());
            }
        }
    }
    let mut done: Vec<&str> = Vec::new();
    let placed = place(plan, &drafts, &mut done);
    if placed.is_err() {
        discard(&drafts);
        undo(plan, &done);
    }
    placed.map_err(Failure::from)
}

fn place<'p>(plan: &'p Plan, drafts: &[Draft], done: &mut Vec<&'p str>) -> anyhow::Result<()> {
    let mut drafts = drafts.iter();
    for (path, change) in &plan.files {
        let shown = || path.clone();
        if change.after.is_some() {
            let Some(Draft { draft, target }) = drafts.next() else { continue };
            fs::rename(draft, target).with_context(shown)?;
        } else {
            fs::remove_file(path).with_context(shown)?;
        }
        done.push(path);
    }
    for folder in plan.files.keys().filter_map(|path| resolved(Path::new(path)).parent().map(Path::to_owned)) {
        // The names themselves are to be on the disk.
        File::open(&folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// A link is followed, so that its target is replaced and the link stays.
fn resolved(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_new| path.to_owned())
}

const MODE: u32 = 0o644;
/// How many names of drafts that killed processes left behind are passed over.
const NAMES: u32 = 1000;

fn stage(target: &Path, text: &str, mode: u32) -> io::Result<PathBuf> {
    let mode = fs::metadata(target).map_or(mode, |known| known.permissions().mode() & 0o777);
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    for number in 0..NAMES {
        let draft = folder.join(format!(".portcullis-{}-{number}.draft", std::process::id()));
        let mut file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            opened => opened?,
        };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        if written.is_err() {
            let _left = fs::remove_file(&draft);
        }
        return written.map(|()| draft);
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many drafts are left here; remove .portcullis-*.draft"))
}

fn discard(drafts: &[Draft]) {
    for draft in drafts {
        // Those that are in their places are not there any more.
        let _placed = fs::remove_file(&draft.draft);
    }
}

fn undo(plan: &Plan, done: &[&str]) {
    for path in done {
        let target = Path::new(path);
        // The failure that led here is reported; more cannot be done about a second one.
        let _as_far_as_it_goes = match plan.files.get(*path).and_then(|change| change.before.as_ref()) {
            Some(text) => stage(&resolved(target), text, MODE).and_then(|draft| fs::rename(draft, resolved(target))),
            None => fs::remove_file(target),
        };
    }
}
