//! The life of a guarded change, from before it is made until it is kept or taken back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use portcullis_manifest::Plan;
use portcullis_policy::PolicySet;
use portcullis_report::guard::Denied;
use rustix::process::Signal;

use super::GuardArgs;
use super::progress::{GuardAction, Limits, Progress, SyncState, TakeBackCause};
use super::record::{Held, Record};
use super::screen::{Screen, length};
use super::start::{expected_hash, folder_hash, listen, pause, record, synced};
use super::take_back::{Change, take_back};
use super::watch::{self, Sets, Watched};
use crate::commands::proxies::Mesh;
use crate::commands::resources::folder::{Folder, FolderArgs};
use crate::exit::{Exit, Failure, Outcome};
use crate::output;
use crate::signals::Signals;

/// Every so many rounds sidecars are asked which policies they have in force, and the files are looked at.
const FULL_ROUND: u64 = 4;
/// Before the end each round is such a one.
const LAST: Duration = Duration::from_secs(3);
/// The most clients that are named.
const MAX_NAMED: usize = 20;
/// How long sidecars are waited for after the change was taken back.
const FORMER: Duration = Duration::from_secs(10);

/// What a guarded change begins with.
pub(in crate::commands::resources) struct Prepare<'a> {
    pub(in crate::commands::resources) args: &'a GuardArgs,
    pub(in crate::commands::resources) folder_args: &'a FolderArgs,
    pub(in crate::commands::resources) folder: &'a Folder,
    pub(in crate::commands::resources) plan: &'a Plan,
    pub(in crate::commands::resources) before: &'a PolicySet,
    pub(in crate::commands::resources) after: &'a PolicySet,
}

/// A guarded change.
pub(in crate::commands::resources) struct Guarded<'a> {
    pub(super) folder_args: &'a FolderArgs,
    pub(super) folder: PathBuf,
    pub(super) limits: Limits,
    pub(super) mesh: Mesh,
    pub(super) signals: Signals,
    pub(super) watched: Vec<Watched>,
    pub(super) record: Record,
    pub(super) held: Held,
    /// The hash of the folder as it should be.
    pub(super) hash: String,
    pub(super) screen: Screen,
}

impl<'a> Guarded<'a> {
    /// Everything before the first file changes. `None`: no guard was asked for, or nothing changes.
    pub(in crate::commands::resources) fn prepare(begin: &Prepare<'a>) -> Result<Option<Self>, Failure> {
        let Prepare { args, folder_args, folder, plan, before, after } = *begin;
        let Some(limits) = args.limits() else { return Ok(None) };
        if plan.files.is_empty() {
            output::note("nothing changes, so nothing is guarded");
            return Ok(None);
        }
        let mesh = args.proxies.find()?;
        let mut signals = listen(&mesh)?;
        let answers = synced(&mesh, &mut signals, limits, &folder_hash(folder))?;
        let sets = Sets { before, after, mesh: &folder.mesh };
        let watched: Vec<Watched> = answers.into_iter().map(|before| Watched::new(before, &sets, None)).collect();
        let record = record(limits, folder, plan, &watched);
        let held = record.write(&folder.path)?;
        let hash = expected_hash(folder, plan);
        let screen = Screen::new();
        let folder = folder.path.clone();
        Ok(Some(Self { folder_args, folder, limits, mesh, signals, watched, record, held, hash, screen }))
    }

    /// The change could not be made.
    pub(in crate::commands::resources) fn give_up(self) {
        // No file of the folder was changed, so a recovery file that cannot be deleted is not worth another error.
        let _left = self.held.remove();
    }

    /// Watches the change, which has been made.
    pub(in crate::commands::resources) fn watch(mut self) -> Outcome {
        let mut seen = Log::default();
        let ended = self.until_ended(&mut seen);
        let denied = seen.count;
        match ended {
            Ended::Kept => {
                self.held.remove()?;
                let refused = if denied == 0 {
                    "nobody was refused that was let through before".to_owned()
                } else {
                    format!("{} refused, and {} allowed", connections(denied), self.limits.max_denied)
                };
                self.screen.note(&format!("guard: the change is kept: {refused} in {}", length(self.limits.guard)));
                self.tell("kept");
                Ok(Exit::Ok)
            }
            Ended::By(why) => {
                let why = self.why(&why);
                self.screen.note(&format!("guard: {why}: the change is taken back"));
                self.back()
            }
            Ended::Signal(signal) => {
                let name = match signal {
                    Signal::INT => "SIGINT",
                    Signal::TERM => "SIGTERM",
                    _ => "SIGHUP",
                };
                self.screen.note(&format!("guard: ended by {name}: the change is taken back"));
                self.back()
            }
            Ended::PutBack => {
                self.held.remove()?;
                self.screen.note("guard: somebody else has put the files back as they were; the guard ends");
                self.tell("taken back");
                Ok(Exit::TakenBack)
            }
            Ended::Foreign(files) => {
                self.held.remove()?;
                let message = format!(
                    "{}: changed by somebody else while the change was guarded; the guard ends, and nothing is written over it",
                    files.join(", ")
                );
                self.screen.clear();
                Err(Failure::message(Exit::NotTakenBack, message))
            }
        }
    }

    fn until_ended(&mut self, seen: &mut Log) -> Ended {
        let start = Instant::now();
        let mut progress = Progress::new(self.limits);
        let mut reported: BTreeMap<usize, SyncState> = BTreeMap::new();
        let waiting = format!("guard: waiting until {} the change in force", have(self.watched.len()));
        self.screen.note(&waiting);
        for rounds in 0_u64.. {
            // The last ones too: what is kept must be in force.
            let full = !progress.has_begun()
                || progress.out_of_sync().next().is_some()
                || progress.left(start.elapsed()) <= LAST
                || rounds.is_multiple_of(FULL_ROUND);
            if full && let Some(ended) = self.look_at_files() {
                return ended;
            }
            let hash = full.then(|| self.hash.clone());
            let round = watch::round(&self.mesh, &mut self.watched, hash.as_deref());
            let now = start.elapsed();
            for note in &round.notes {
                self.screen.note(&format!("warning: {note}"));
            }
            seen.add(&round, &mut self.screen);
            let had_begun = progress.has_begun();
            let action = progress.round(now, round.states, seen.count);
            self.report_out_of_sync(&progress, &mut reported);
            if progress.has_begun() && !had_begun {
                let Limits { guard, max_denied, .. } = self.limits;
                let line = format!(
                    "guard: {} the change in force; watching for {}, --max-denied {max_denied}",
                    have(self.watched.len()),
                    length(guard)
                );
                self.screen.note(&line);
            }
            match action {
                GuardAction::Keep => return Ended::Kept,
                GuardAction::TakeBack(why) => return Ended::By(why),
                GuardAction::Continue => {}
            }
            self.show_progress(&progress, now, seen.count);
            if let Some(signal) = pause(&self.mesh, &mut self.signals) {
                return Ended::Signal(signal);
            }
        }
        // Not in half an eternity.
        Ended::Kept
    }

    fn show_progress(&mut self, progress: &Progress, now: Duration, denied: u64) {
        let (all, stale_count) = (self.watched.len(), progress.out_of_sync().count());
        let line = if progress.has_begun() {
            let left = length(progress.left(now));
            let out_of_sync = if stale_count == 0 {
                String::new()
            } else {
                format!(", {stale_count} sidecars not as they should be")
            };
            format!("guard: {left} left, {denied} refused{out_of_sync}")
        } else {
            let done = all.saturating_sub(stale_count);
            format!("guard: {done} of {all} sidecars have the change in force, {denied} refused")
        };
        self.screen.progress(&line);
    }

    /// Whether the files of the change are still those of the change. Others in the folder may change meanwhile.
    fn look_at_files(&mut self) -> Option<Ended> {
        // While somebody writes, the folder cannot be read; what it was before counts until then.
        if let Ok(folder) = self.folder_args.read() {
            self.hash = folder_hash(&folder);
        }
        let change = Change::look(&self.record, &self.folder);
        if change.is_put_back() {
            return Some(Ended::PutBack);
        }
        (!change.foreign.is_empty()).then_some(Ended::Foreign(change.foreign))
    }

    /// Tells what is not as it should be, once, and when it is again. At first nobody has the change, which is no news.
    fn report_out_of_sync(&mut self, progress: &Progress, reported: &mut BTreeMap<usize, SyncState>) {
        let now: BTreeMap<usize, SyncState> =
            progress.out_of_sync().map(|(sidecar, state)| (sidecar, state.clone())).collect();
        let over: Vec<usize> = reported.keys().filter(|sidecar| !now.contains_key(sidecar)).copied().collect();
        for sidecar in over {
            reported.remove(&sidecar);
            let line = format!("{} is as it should be again", self.shown(sidecar));
            self.screen.note(&line);
        }
        for (sidecar, state) in now {
            if reported.get(&sidecar) != Some(&state) && (progress.has_begun() || state != SyncState::Stale) {
                let line = format!("warning: {}", self.describe(sidecar, &state));
                self.screen.note(&line);
                reported.insert(sidecar, state);
            }
        }
    }

    fn shown(&self, sidecar: usize) -> &str {
        self.watched.get(sidecar).map_or("a sidecar", |one| &one.shown)
    }

    fn describe(&self, sidecar: usize, state: &SyncState) -> String {
        let shown = self.shown(sidecar);
        match state {
            SyncState::Synced => format!("{shown} has the policies of the folder in force"),
            SyncState::Stale => format!("{shown} does not have the policies of the folder in force"),
            SyncState::Rejects(message) => format!("{shown} refuses the policies: {message}"),
            SyncState::Unreachable(why) => format!("{shown} does not answer: {why}"),
        }
    }

    fn why(&self, why: &TakeBackCause) -> String {
        match why {
            TakeBackCause::Denied(count) => {
                let were = if *count == 1 { "was" } else { "were" };
                let most = self.limits.max_denied;
                format!(
                    "{} {were} refused that {were} let through before, and --max-denied is {most}",
                    connections(*count)
                )
            }
            TakeBackCause::OutOfSync { sidecar, state, lasted } => {
                format!("{}, for {} now", self.describe(*sidecar, state), length(*lasted))
            }
        }
    }

    fn tell(&self, word: &str) {
        let lines: String = self.record.resources.iter().map(|it| format!("{it} {word}\n")).collect();
        // The terminal may be gone, which was the reason.
        let _unwritable = output::text(&lines);
    }

    fn back(mut self) -> Outcome {
        self.screen.clear();
        let notes = take_back(self.folder_args, &self.folder, &self.record, &self.held)?;
        for note in notes {
            self.screen.note(&note);
        }
        let lines: String = self.record.resources.iter().map(|it| format!("{it} taken back\n")).collect();
        let _unwritable = output::text(&lines);
        self.wait_for_former();
        Ok(Exit::TakenBack)
    }

    /// Waits until the sidecars have the former policies in force again, as far as they answer.
    fn wait_for_former(&mut self) {
        let start = Instant::now();
        loop {
            if let Ok(folder) = self.folder_args.read() {
                self.hash = folder_hash(&folder);
            }
            let states = watch::round(&self.mesh, &mut self.watched, Some(&self.hash)).states;
            let (done, all) = (states.iter().filter(|state| **state == SyncState::Synced).count(), states.len());
            if done == all {
                return self.screen.note(&format!("guard: {} the former policies in force again", have(all)));
            }
            self.screen.progress(&format!("guard: {done} of {all} sidecars have the former policies in force"));
            if start.elapsed() >= FORMER || pause(&self.mesh, &mut self.signals).is_some() {
                for (sidecar, state) in states.iter().enumerate().filter(|(_, state)| **state != SyncState::Synced) {
                    let line = format!("warning: {}", self.describe(sidecar, state));
                    self.screen.note(&line);
                }
                return;
            }
        }
    }
}

/// How a watch ended.
enum Ended {
    Kept,
    By(TakeBackCause),
    Signal(Signal),
    /// The files are as they were before.
    PutBack,
    /// These files have another content.
    Foreign(Vec<String>),
}

/// Who was refused until now.
#[derive(Default)]
struct Log {
    count: u64,
    known: Vec<Denied>,
    unnamed: bool,
}

impl Log {
    fn add(&mut self, round: &watch::Round, screen: &mut Screen) {
        for denied in &round.denied {
            self.count = self.count.saturating_add(1);
            if self.known.iter().any(|known| known.is_again(denied)) {
                continue;
            }
            if self.known.len() < MAX_NAMED {
                screen.note(&format!("denied: {denied}"));
                self.known.push(denied.clone());
            } else if !std::mem::replace(&mut self.unnamed, true) {
                screen.note("denied: and others, which are not named here; see `portcullis logs --denied`");
            }
        }
        if round.unseen > 0 {
            self.count = self.count.saturating_add(round.unseen);
            let line =
                format!("denied: {} ended too fast to be looked at; they count as refused", connections(round.unseen));
            screen.note(&line);
        }
    }
}

pub(super) fn connections(count: u64) -> String {
    format!("{count} connection{}", if count == 1 { "" } else { "s" })
}

fn have(count: usize) -> String {
    if count == 1 { "the sidecar has".to_owned() } else { format!("all {count} sidecars have") }
}
