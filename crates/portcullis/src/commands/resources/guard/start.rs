//! What a guarded change begins with: every sidecar has the policies of the folder in force, and says whom it refuses already.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use portcullis_api::Timestamp;
use portcullis_manifest::Plan;
use portcullis_tls::Clock;
use rustix::process::Signal;

use super::progress::Limits;
use super::record::Record;
use super::screen::length;
use super::watch::{self, Before, Watched};
use crate::commands::proxies::Mesh;
use crate::commands::resources::folder::Folder;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::set_hash::set_hash;
use crate::signals::Signals;

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may be that no sidecar at all has the policies of the folder. Each looks for changes every second or so.
const FOREIGN: Duration = Duration::from_secs(10);

/// Signals that take a change back.
pub(super) fn listen(mesh: &Mesh) -> Result<Signals, Failure> {
    let wanted = [Signal::INT, Signal::TERM, Signal::HUP];
    Ok(mesh.block_on(async { Signals::listen(&wanted) }).context("cannot listen to signals")?)
}

/// Waits between two rounds; a signal ends the wait.
pub(super) fn pause(mesh: &Mesh, signals: &mut Signals) -> Option<Signal> {
    mesh.block_on(async {
        tokio::select! {
            biased;
            signal = signals.next() => Some(signal),
            () = tokio::time::sleep(PAUSE) => None,
        }
    })
}

pub(super) fn folder_hash(folder: &Folder) -> String {
    set_hash(folder.files.iter().map(|file| file.text.as_bytes()))
}

/// The answers of all sidecars, once each has the folder's policies in force: only then the change is all that changes.
pub(super) fn synced(mesh: &Mesh, signals: &mut Signals, limits: Limits, hash: &str) -> Result<Vec<Before>, Failure> {
    let start = Instant::now();
    let mut is_told = false;
    loop {
        let answers = answered(mesh, limits.keep_unanswered)?;
        let reads = |before: &&Before| before.policies.folder.is_some();
        if !answers.iter().any(|before| reads(&before)) {
            let message = "none of these sidecars reads a policy folder, so nobody could say what the change does; name those that \
                           read it (--admin, --proxies, --docker). Nothing was changed";
            return Err(Failure::message(Exit::Failure, message));
        }
        let differ = |before: &&Before| {
            before.policies.problem.is_some() || before.policies.hash.as_deref().is_some_and(|own| own != hash)
        };
        let Some(other) = answers.iter().filter(reads).find(differ) else { return Ok(answers) };
        let (all, behind) = (answers.iter().filter(reads).count(), answers.iter().filter(reads).filter(differ).count());
        if behind == all && start.elapsed() >= FOREIGN.min(limits.load) && other.policies.problem.is_none() {
            return Err(foreign(other, all));
        }
        if !std::mem::replace(&mut is_told, true) {
            let most = length(if behind == all { FOREIGN.min(limits.load) } else { limits.load });
            output::note(&format!(
                "guard: {behind} of {all} sidecars do not have the policies of this folder in force; waiting, at most {most}"
            ));
        }
        if start.elapsed() >= limits.load {
            let shown = watch::shown(&other.target, &other.proxy);
            let why = other.policies.problem.as_ref().map_or_else(
                || "has other policies in force than those of this folder".to_owned(),
                |problem| format!("refuses the policies as they are: {}", problem.message),
            );
            let message = format!(
                "{shown} {why}, so it could not be told what the change does to its clients; see `portcullis proxy-status`. \
                 Nothing was changed"
            );
            return Err(Failure::message(Exit::Failure, message));
        }
        if let Some(signal) = pause(mesh, signals) {
            return Err(Failure::message(Exit::killed_by(signal.as_raw()), "interrupted; nothing was changed"));
        }
    }
}

/// The folder is hardly the one that these sidecars read.
fn foreign(one: &Before, all: usize) -> Failure {
    let shown = watch::shown(&one.target, &one.proxy);
    let theirs = one.policies.folder.as_deref().unwrap_or("another folder");
    let none = if all == 1 { "the sidecar does not have".to_owned() } else { format!("none of {all} sidecars has") };
    let message = format!(
        "{none} the policies of this folder in force: {shown} reads {theirs}. Name the folder that they read (--policies), or the sidecars \
         that read this one. Nothing was changed"
    );
    Failure::message(Exit::Failure, message)
}

fn answered(mesh: &Mesh, keep_unanswered: bool) -> Result<Vec<Before>, Failure> {
    let (mut answers, mut silent) = (Vec::new(), Vec::new());
    for (target, answer) in watch::before(mesh) {
        match answer {
            Ok(before) => answers.push(before),
            Err(why) => silent.push(format!("{}: {why}", target.address)),
        }
    }
    if silent.is_empty() || (keep_unanswered && !answers.is_empty()) {
        silent.iter().for_each(|line| output::note(&format!("warning: {line}; it is not watched")));
        return Ok(answers);
    }
    let message = format!(
        "a sidecar does not answer, so whom it refuses would not be seen:\n  {}\nNothing was changed. --keep-unanswered does without it",
        silent.join("\n  ")
    );
    Err(Failure::message(Exit::Unreachable, message))
}

pub(super) fn now() -> Timestamp {
    Timestamp::from_unix(Clock::system().now_unix())
}

/// When the watch ends at the latest.
pub(super) fn until(from: Timestamp, limits: Limits) -> Timestamp {
    let seconds = limits.load.saturating_add(limits.guard).as_secs();
    Timestamp::from_unix(from.unix().saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

pub(super) fn record(limits: Limits, folder: &Folder, plan: &Plan, watched: &[Watched]) -> Record {
    let started_at = now();
    Record {
        version: Record::version(),
        started_at,
        until: until(started_at, limits),
        pid: std::process::id(),
        guard_seconds: limits.guard.as_secs(),
        max_denied: limits.max_denied,
        load_seconds: limits.load.as_secs(),
        silence_seconds: limits.silence.as_secs(),
        keep_unanswered: limits.keep_unanswered,
        resources: plan.effects.iter().filter(|it| it.before != it.after).map(|it| it.id.to_string()).collect(),
        files: Record::files(plan, &folder.path),
        sidecars: watched.iter().map(Watched::recorded).collect(),
    }
}

pub(super) fn expected_hash(folder: &Folder, plan: &Plan) -> String {
    let kept = folder.files.iter().filter(|file| !plan.files.contains_key(&file.path)).map(|file| file.text.as_bytes());
    set_hash(kept.chain(plan.files.values().filter_map(|change| change.after.as_deref().map(str::as_bytes))))
}
