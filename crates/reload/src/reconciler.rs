//! Decides when a set of files is passed to the loader, and when a failure becomes an alarm. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use crate::file::FileContent;
use crate::inbox::{QUIET, Wake};
use crate::reading::share_unchanged;
use crate::removal_delay::RemovalDelay;

/// How often a failing set is read again before the alarm is raised: a certificate and its key are two writes, and an empty
/// file may be about to be written.
pub(crate) const RETRIES: u32 = 3;
/// The pause before each of the [`RETRIES`].
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// When a refused set is offered to the loader again although it did not change: a certificate may not have been valid
/// *yet*.
pub(crate) const RELOAD_REFUSED_AFTER: Duration = Duration::from_secs(30);

/// A change that only a periodic rescan found is read again after this time: its writer may have paused.
pub(crate) const CONFIRM_RESCAN_AFTER: Duration = Duration::from_millis(350);

/// A set that is different whenever it is read is accepted after this time.
const MAX_CONFIRMATION: Duration = Duration::from_millis(700);

/// The set in force, the set that was offered to the loader last, and changes that are not confirmed yet.
#[derive(Debug, Default)]
pub(crate) struct Reconciler {
    /// `None` for a list of files, of which none may be missing.
    removal_delay: Option<RemovalDelay>,
    accepted: Vec<FileContent>,
    /// The set that was offered to the loader last, with the result.
    offered: Option<Offered>,
    candidate: Option<Candidate>,
    failures: u32,
    /// When a missing file will have been gone for long enough.
    held_until: Option<Instant>,
    /// When a file that is being written will be taken as it is.
    writer_until: Option<Instant>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Offered {
    files: Vec<FileContent>,
    at: Instant,
    refusal: Option<String>,
}

/// A change that no event announced, so that its writer may not be done: it has to be read twice.
#[derive(Debug)]
struct Candidate {
    files: Vec<FileContent>,
    since: Instant,
    read_again_at: Instant,
}

/// What to do with a set that was read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Pass these files to the loader.
    Load(Vec<FileContent>),
    /// Nothing: the set is in force already.
    InForce,
    /// Nothing: the loader refused exactly this, for this reason.
    StillRefused(String),
    /// Read again shortly, it may be half written.
    Wait,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// No alarm yet: it may be a write in progress.
    Transient,
    /// Raise the alarm.
    Alarm,
}

impl Reconciler {
    pub(crate) fn new(allows_removal: bool) -> Self {
        Self { removal_delay: allows_removal.then(RemovalDelay::default), ..Self::default() }
    }

    /// What is in force.
    pub(crate) fn in_force(&self) -> &[FileContent] {
        &self.accepted
    }

    /// Until this time at most, the next set has the former content of files that are being written.
    pub(crate) fn set_writer_deadline(&mut self, until: Option<Instant>) {
        self.writer_until = until;
    }

    /// The whole set was read.
    pub(crate) fn read(&mut self, mut files: Vec<FileContent>, wake: Wake, now: Instant) -> Step {
        self.retry_at = None;
        share_unchanged(&mut files, &self.accepted);
        if let Some(removal_delay) = &mut self.removal_delay {
            let effective = removal_delay.effective(&self.accepted, files, now);
            files = effective.files;
            self.held_until = effective.until;
        }
        if let Some(offered) = &self.offered
            && offered.files == files
        {
            self.candidate = None;
            return match &offered.refusal {
                None => Step::InForce,
                Some(_) if wake == Wake::Requested || now >= offered.at + RELOAD_REFUSED_AFTER => Step::Load(files),
                Some(why) => Step::StillRefused(why.clone()),
            };
        }
        // What is in force, while the loader was offered something else since: the writer may be about to repair it.
        if self.writer_until.is_some() && files == self.accepted {
            return Step::Wait;
        }
        let confirm_after = match wake {
            Wake::Timer => Some(CONFIRM_RESCAN_AFTER),
            Wake::Suspected => Some(QUIET),
            Wake::Stop | Wake::Requested | Wake::Announced => None,
        };
        if let Some(after) = confirm_after
            && !self.is_confirmed(&files, after, now)
        {
            return Step::Wait;
        }
        self.candidate = None;
        Step::Load(files)
    }

    /// Whether a second read found the same files, or they have been changing for [`MAX_CONFIRMATION`].
    fn is_confirmed(&mut self, files: &[FileContent], after: Duration, now: Instant) -> bool {
        let since = self.candidate.as_ref().map_or(now, |candidate| candidate.since);
        match &self.candidate {
            Some(candidate) if candidate.files == files => return now >= candidate.read_again_at,
            _ if now >= since + MAX_CONFIRMATION => return true,
            _ => {}
        }
        self.candidate = Some(Candidate { files: files.to_vec(), since, read_again_at: now + after });
        false
    }

    /// The loader took the files.
    pub(crate) fn accepted(&mut self, files: Vec<FileContent>, now: Instant) {
        self.accepted.clone_from(&files);
        self.offered = Some(Offered { files, at: now, refusal: None });
        self.reset_failures();
    }

    /// The loader refused the files.
    pub(crate) fn refused(&mut self, files: Vec<FileContent>, why: &str, now: Instant) {
        self.offered = Some(Offered { files, at: now, refusal: Some(why.to_owned()) });
    }

    /// The files are good: the next failure gets all [`RETRIES`] again.
    pub(crate) fn reset_failures(&mut self) {
        self.failures = 0;
    }

    /// The set could not be read at all.
    pub(crate) fn unreadable(&mut self) {
        self.candidate = None;
        self.held_until = None;
        if let Some(removal_delay) = &mut self.removal_delay {
            removal_delay.forget();
        }
    }

    /// Reading or loading failed. While a missing file is held, a conflict between it and its successor under another name is
    /// no alarm either.
    pub(crate) fn failed(&mut self, now: Instant) -> Failure {
        self.failures = self.failures.saturating_add(1);
        let retry = self.failures <= RETRIES;
        self.retry_at = retry.then(|| now + RETRY_AFTER);
        if retry || self.held_until.is_some() { Failure::Transient } else { Failure::Alarm }
    }

    /// When to read again, even if nothing is announced, if sooner than the rescan.
    pub(crate) fn read_again_at(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.read_again_at);
        [candidate, self.held_until, self.writer_until, self.retry_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::removal_delay::REMOVAL_DELAY;

    fn set(files: &[(&str, &str)]) -> Vec<FileContent> {
        let file = |(path, text): &(&str, &str)| FileContent {
            path: PathBuf::from(path),
            content: text.as_bytes().to_vec().into(),
            mode: 0o600,
        };
        files.iter().map(file).collect()
    }

    fn with(files: &[(&str, &str)], now: Instant) -> Reconciler {
        let mut reconciler = Reconciler::new(true);
        reconciler.accepted(set(files), now);
        reconciler
    }

    #[test]
    fn an_announced_change_is_loaded_and_a_found_one_is_seen_twice() {
        let now = Instant::now();
        let (old, new) = (set(&[("a", "1")]), set(&[("a", "2")]));
        let mut reconciler = with(&[("a", "1")], now);
        assert_eq!(reconciler.read(old, Wake::Timer, now), Step::InForce);
        assert_eq!(reconciler.read(new.clone(), Wake::Announced, now), Step::Load(new.clone()));

        for (wake, after) in [(Wake::Timer, CONFIRM_RESCAN_AFTER), (Wake::Suspected, QUIET)] {
            let mut reconciler = with(&[("a", "1")], now);
            assert_eq!(reconciler.read(new.clone(), wake, now), Step::Wait);
            assert_eq!(reconciler.read_again_at(), Some(now + after));
            let almost = now + after - Duration::from_millis(1);
            assert_eq!(reconciler.read(new.clone(), Wake::Suspected, almost), Step::Wait);
            assert_eq!(reconciler.read(new.clone(), Wake::Timer, now + after), Step::Load(new.clone()));
        }
    }

    #[test]
    fn a_writer_that_never_pauses_is_not_waited_for_without_end() {
        let start = Instant::now();
        let mut reconciler = with(&[("a", "1")], start);
        let mut now = start;
        let mut text = String::from("1");
        loop {
            text.push('1');
            match reconciler.read(set(&[("a", &text)]), Wake::Timer, now) {
                Step::Wait => now = reconciler.read_again_at().unwrap(),
                Step::Load(files) => break assert_eq!(files, set(&[("a", &text)])),
                step => panic!("{step:?}"),
            }
        }
        assert!(now >= start + MAX_CONFIRMATION && now <= start + MAX_CONFIRMATION + CONFIRM_RESCAN_AFTER);
    }

    #[test]
    fn a_writer_that_has_a_file_open_does_not_end_a_problem() {
        let now = Instant::now();
        let mut reconciler = with(&[("a", "1")], now);
        reconciler.refused(set(&[("a", "bad")]), "bad", now);
        reconciler.set_writer_deadline(Some(now + QUIET));
        assert_eq!(reconciler.read(set(&[("a", "1")]), Wake::Announced, now), Step::Wait);
        assert_eq!(reconciler.read_again_at(), Some(now + QUIET));
        reconciler.set_writer_deadline(None);
        assert_eq!(reconciler.read(set(&[("a", "1")]), Wake::Announced, now), Step::Load(set(&[("a", "1")])));
    }

    #[test]
    fn a_failure_is_an_alarm_only_after_the_retries() {
        let now = Instant::now();
        let mut reconciler = with(&[("a", "1")], now);
        for _ in 0..RETRIES {
            assert_eq!(reconciler.failed(now), Failure::Transient);
            assert_eq!(reconciler.read_again_at(), Some(now + RETRY_AFTER));
        }
        assert_eq!(reconciler.failed(now), Failure::Alarm);
        assert_eq!(reconciler.read_again_at(), None);
        reconciler.reset_failures();
        assert_eq!(reconciler.failed(now), Failure::Transient);
    }

    #[test]
    fn a_refusal_while_a_gone_file_is_held_is_no_alarm_yet() {
        let now = Instant::now();
        let mut reconciler = with(&[("a", "1")], now);
        let Step::Load(both) = reconciler.read(set(&[("b", "2")]), Wake::Announced, now) else { panic!("not loaded") };
        assert_eq!(both, set(&[("a", "1"), ("b", "2")]));
        reconciler.refused(both, "duplicate", now);
        for _ in 0..2 * RETRIES {
            assert_eq!(reconciler.failed(now), Failure::Transient);
        }
        assert_eq!(reconciler.read_again_at(), Some(now + REMOVAL_DELAY));
        let alone = set(&[("b", "2")]);
        assert_eq!(reconciler.read(alone.clone(), Wake::Announced, now + REMOVAL_DELAY), Step::Load(alone));
    }

    #[test]
    fn a_refused_set_is_offered_again_on_request_or_after_some_time() {
        let now = Instant::now();
        let bad = set(&[("a", "bad")]);
        let mut reconciler = with(&[("a", "1")], now);
        reconciler.refused(bad.clone(), "bad", now);
        assert_eq!(reconciler.read(bad.clone(), Wake::Announced, now), Step::StillRefused("bad".to_owned()));
        assert_eq!(reconciler.read(bad.clone(), Wake::Requested, now), Step::Load(bad.clone()));
        assert_eq!(reconciler.read(bad.clone(), Wake::Timer, now + RELOAD_REFUSED_AFTER), Step::Load(bad));
    }

    #[test]
    fn a_refused_file_that_is_deleted_is_not_held() {
        let now = Instant::now();
        let mut reconciler = with(&[("a", "1")], now);
        reconciler.refused(set(&[("a", "1"), ("b", "bad")]), "bad", now);
        let good = set(&[("a", "1")]);
        assert_eq!(reconciler.read(good.clone(), Wake::Announced, now), Step::Load(good));
    }

    #[test]
    fn an_unreadable_folder_proves_no_absence() {
        let now = Instant::now();
        let mut reconciler = with(&[("a", "1")], now);
        assert_eq!(reconciler.read(Vec::new(), Wake::Announced, now), Step::InForce);
        reconciler.unreadable();
        assert_eq!(reconciler.read(Vec::new(), Wake::Announced, now + REMOVAL_DELAY), Step::InForce);
        assert_eq!(reconciler.read_again_at(), Some(now + 2 * REMOVAL_DELAY));
    }

    #[test]
    fn a_list_of_files_holds_nothing() {
        let now = Instant::now();
        let mut reconciler = Reconciler::new(false);
        reconciler.accepted(set(&[("z", "1"), ("a", "1")]), now);
        let new = set(&[("z", "2"), ("a", "1")]);
        assert_eq!(reconciler.read(new.clone(), Wake::Announced, now), Step::Load(new));
    }
}
