//! `apply --resume`, `--take-back` and `--accept`: the end of a guarded change whose command is gone.

use std::time::{Duration, Instant};

use portcullis_discovery::AdminAddress;
use portcullis_policy::PolicySet;

use super::guarded::Guarded;
use super::progress::Limits;
use super::record::{self, Held, Record};
use super::screen::Screen;
use super::start::{folder_hash, listen, now, pause, until};
use super::take_back::{Change, take_back};
use super::watch::{self, Before, Sets, Watched};
use super::{EndBy, GuardArgs};
use crate::commands::certs::lock;
use crate::commands::proxies::Mesh;
use crate::commands::resources::folder::{Folder, FolderArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::signals::Signals;

/// Ends the guarded change of the folder.
pub(in crate::commands::resources) fn end(folder_args: &FolderArgs, args: &GuardArgs, by: EndBy) -> Outcome {
    let folder = folder_args.path()?;
    let locked = lock(&folder)?;
    let Some((record, held)) = record::take_over(&folder)? else {
        let message = format!("{}: no guarded change is open", folder.display());
        return Err(Failure::message(Exit::Failure, message));
    };
    let told = |word: &str| -> Outcome {
        output::text(&record.resources.iter().map(|it| format!("{it} {word}\n")).collect::<String>())?;
        Ok(Exit::Ok)
    };
    if Change::look(&record, &folder).is_put_back() {
        held.remove()?;
        output::note("the files are as they were before the change; nothing is left of it");
        return told("taken back");
    }
    match by {
        EndBy::Accept => {
            held.remove()?;
            told("kept")
        }
        EndBy::TakeBack => {
            drop(locked);
            take_back(folder_args, &folder, &record, &held)?.iter().for_each(|note| output::note(note));
            told("taken back")
        }
        EndBy::Resume => {
            let guarded = resumed(folder_args, args, record, held)?;
            drop(locked);
            guarded.watch()
        }
    }
}

/// The change as it was left, to be watched for its whole time: that nobody watched proves nothing. What sidecars refused meanwhile counts,
/// as far as they remember it.
fn resumed<'a>(
    folder_args: &'a FolderArgs,
    args: &GuardArgs,
    record: Record,
    held: Held,
) -> Result<Guarded<'a>, Failure> {
    let limits = Limits {
        guard: Duration::from_secs(record.guard_seconds.max(1)),
        max_denied: record.max_denied,
        load: Duration::from_secs(record.load_seconds.max(1)),
        silence: Duration::from_secs(record.silence_seconds.max(1)),
        keep_unanswered: record.keep_unanswered,
    };
    let mesh = if args.proxies.is_named() {
        args.proxies.find()?
    } else {
        let addresses = record.sidecars.iter().map(|one| AdminAddress::parse(&one.address));
        args.proxies.of(addresses.collect::<Result<_, _>>().map_err(Failure::bad_input)?)?
    };
    let mut signals = listen(&mesh)?;
    let folder = folder_args.read()?;
    let Resumed { before, after } = sets(&folder, &record);
    let answers = answers(&mesh, &mut signals, limits)?;
    let sets = Sets { before: &before, after: &after, mesh: &folder.mesh };
    let watched = answers.into_iter().map(|before| {
        let address = before.target.address.to_string();
        let from = record.sidecars.iter().find(|one| one.address == address);
        Watched::new(before, &sets, from)
    });
    let watched: Vec<Watched> = watched.collect();
    let started_at = now();
    let record = Record { pid: std::process::id(), until: until(started_at, limits), ..record };
    // In the place of the other, whose lock ends with it.
    let renewed = record.write(&folder.path)?;
    drop(held);
    let (hash, path) = (folder_hash(&folder), folder.path);
    let screen = Screen::new();
    Ok(Guarded { folder_args, folder: path, limits, mesh, signals, watched, record, held: renewed, hash, screen })
}

struct Resumed {
    before: PolicySet,
    after: PolicySet,
}

fn sets(folder: &Folder, record: &Record) -> Resumed {
    let (reverse, _modes) = record.reverse(&folder.path);
    Resumed { before: folder.check_with(&reverse).set, after: folder.check().set }
}

/// What the sidecars say. One that does not answer is waited for, as while a change is watched.
fn answers(mesh: &Mesh, signals: &mut Signals, limits: Limits) -> Result<Vec<Before>, Failure> {
    let start = Instant::now();
    loop {
        let (mut answers, mut silent) = (Vec::new(), Vec::new());
        for (target, answer) in watch::before(mesh) {
            match answer {
                Ok(before) => answers.push(before),
                Err(why) => silent.push(format!("{}: {why}", target.address)),
            }
        }
        if silent.is_empty() || (limits.keep_unanswered && !answers.is_empty()) {
            return Ok(answers);
        }
        if start.elapsed() >= limits.silence || pause(mesh, signals).is_some() {
            let message = format!(
                "a sidecar does not answer, so the change cannot be watched:\n  {}\nIt is still in force; take it back with `portcullis apply \
                 --take-back`",
                silent.join("\n  ")
            );
            return Err(Failure::message(Exit::Unreachable, message));
        }
    }
}
