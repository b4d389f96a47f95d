//! When a set that was read is handed to the loader, and when a failure becomes an alarm. Pure: time is an argument.

use std::time::{Duration, Instant};

use crate::absence::Absences;
use crate::file::FileContent;
use crate::signals::{PATIENCE, QUIET, Wake};
use crate::source::share_unchanged;

/// A failing set is looked at again so often, so long apart, before it is called a failure: a certificate and its key
/// are two writes, and an empty file is about to be written.
pub(crate) const RETRIES: u32 = 3;
/// See [`RETRIES`].
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A refused set is judged again so often although it did not change: a certificate may have been not valid *yet*.
pub(crate) const JUDGE_AGAIN: Duration = Duration::from_secs(30);

/// What is known of the sets so far.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// `None` for a list of files, of which none may be missing.
    absences: Option<Absences>,
    accepted: Vec<FileContent>,
    /// What the loader saw last, and what came of it.
    judged: Option<Judged>,
    candidate: Option<Candidate>,
    failures: u32,
    /// When a missing file will have been gone for long enough.
    held_until: Option<Instant>,
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Judged {
    files: Vec<FileContent>,
    at: Instant,
    refusal: Option<String>,
}

/// A change that no event announced, so that nobody knows whether the writer is done: it has to be seen twice.
#[derive(Debug)]
struct Candidate {
    files: Vec<FileContent>,
    since: Instant,
    look_at: Instant,
}

/// What to do with a set that was read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Hand these files to the loader.
    Load(Vec<FileContent>),
    /// Nothing: it is what is in force.
    InForce,
    /// Nothing: the loader refused just this, and said why.
    StillRefused(String),
    /// Look again shortly, it may be half written.
    Wait,
}

/// What to do about a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failure {
    /// Nothing yet, it may be a write in progress.
    MayPass,
    /// Tell the operator.
    Alarm,
}

impl Progress {
    pub(crate) fn new(members_may_go: bool) -> Self {
        Self { absences: members_may_go.then(Absences::default), ..Self::default() }
    }

    /// The whole set was read.
    pub(crate) fn read(&mut self, mut files: Vec<FileContent>, wake: Wake, now: Instant) -> Step {
        self.retry_at = None;
        share_unchanged(&mut files, &self.accepted);
        if let Some(absences) = &mut self.absences {
            let effective = absences.effective(&self.accepted, files, now);
            files = effective.files;
            self.held_until = effective.until;
        }
        if let Some(judged) = &self.judged
            && judged.files == files
        {
            self.candidate = None;
            return match &judged.refusal {
                None => Step::InForce,
                Some(_) if wake == Wake::Asked || now >= judged.at + JUDGE_AGAIN => Step::Load(files),
                Some(why) => Step::StillRefused(why.clone()),
            };
        }
        if wake == Wake::Timer && !self.seen_before(&files, now) {
            return Step::Wait;
        }
        self.candidate = None;
        Step::Load(files)
    }

    /// Whether these files were the same a moment ago, or have been changing for too long to wait any more.
    fn seen_before(&mut self, files: &[FileContent], now: Instant) -> bool {
        let since = self.candidate.as_ref().map_or(now, |candidate| candidate.since);
        if self.candidate.as_ref().is_some_and(|candidate| candidate.files == files) || now >= since + PATIENCE {
            return true;
        }
        self.candidate = Some(Candidate { files: files.to_vec(), since, look_at: now + QUIET });
        false
    }

    /// The loader took the files.
    pub(crate) fn accepted(&mut self, files: Vec<FileContent>, now: Instant) {
        self.accepted.clone_from(&files);
        self.judged = Some(Judged { files, at: now, refusal: None });
        self.fine();
    }

    /// The loader refused the files.
    pub(crate) fn refused(&mut self, files: Vec<FileContent>, why: &str, now: Instant) {
        self.judged = Some(Judged { files, at: now, refusal: Some(why.to_owned()) });
    }

    /// Nothing is wrong (any more).
    pub(crate) fn fine(&mut self) {
        self.failures = 0;
    }

    /// The set could not be read at all.
    pub(crate) fn unreadable(&mut self) {
        self.candidate = None;
        self.held_until = None;
        if let Some(absences) = &mut self.absences {
            absences.forget();
        }
    }

    /// A look ended in failure. While a gone file is still held, a clash between it and its successor under another name
    /// is no news either.
    pub(crate) fn failed(&mut self, now: Instant) -> Failure {
        self.failures = self.failures.saturating_add(1);
        let retry = self.failures <= RETRIES;
        self.retry_at = retry.then(|| now + RETRY_AFTER);
        if retry || self.held_until.is_some() { Failure::MayPass } else { Failure::Alarm }
    }

    /// When to look again, even if nothing is announced, if sooner than the rescan.
    pub(crate) fn look_again_at(&self) -> Option<Instant> {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.look_at);
        [candidate, self.held_until, self.retry_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::absence::GONE_FOR;

    fn set(files: &[(&str, &str)]) -> Vec<FileContent> {
        let file = |(path, text): &(&str, &str)| FileContent {
            path: PathBuf::from(path),
            content: text.as_bytes().to_vec().into(),
            mode: 0o600,
        };
        files.iter().map(file).collect()
    }

    fn with(files: &[(&str, &str)], now: Instant) -> Progress {
        let mut progress = Progress::new(true);
        progress.accepted(set(files), now);
        progress
    }

    #[test]
    fn an_announced_change_is_loaded_and_a_found_one_is_seen_twice() {
        let now = Instant::now();
        let (old, new) = (set(&[("a", "1")]), set(&[("a", "2")]));
        let mut progress = with(&[("a", "1")], now);
        assert_eq!(progress.read(old, Wake::Timer, now), Step::InForce);
        assert_eq!(progress.read(new.clone(), Wake::Announced, now), Step::Load(new.clone()));

        let mut progress = with(&[("a", "1")], now);
        assert_eq!(progress.read(new.clone(), Wake::Timer, now), Step::Wait);
        assert_eq!(progress.look_again_at(), Some(now + QUIET));
        assert_eq!(progress.read(new.clone(), Wake::Timer, now + QUIET), Step::Load(new));
    }

    #[test]
    fn a_writer_that_never_pauses_is_not_waited_for_for_ever() {
        let start = Instant::now();
        let mut progress = with(&[("a", "1")], start);
        let mut now = start;
        let mut text = String::from("1");
        loop {
            text.push('1');
            match progress.read(set(&[("a", &text)]), Wake::Timer, now) {
                Step::Wait => now += QUIET,
                Step::Load(files) => break assert_eq!(files, set(&[("a", &text)])),
                step => panic!("{step:?}"),
            }
        }
        assert!(now >= start + PATIENCE && now <= start + PATIENCE + QUIET);
    }

    #[test]
    fn a_failure_is_an_alarm_only_after_the_retries() {
        let now = Instant::now();
        let mut progress = with(&[("a", "1")], now);
        for _ in 0..RETRIES {
            assert_eq!(progress.failed(now), Failure::MayPass);
            assert_eq!(progress.look_again_at(), Some(now + RETRY_AFTER));
        }
        assert_eq!(progress.failed(now), Failure::Alarm);
        assert_eq!(progress.look_again_at(), None);
        progress.fine();
        assert_eq!(progress.failed(now), Failure::MayPass);
    }

    #[test]
    fn a_refusal_while_a_gone_file_is_held_is_no_alarm_yet() {
        let now = Instant::now();
        let mut progress = with(&[("a", "1")], now);
        let Step::Load(both) = progress.read(set(&[("b", "2")]), Wake::Announced, now) else { panic!("not loaded") };
        assert_eq!(both, set(&[("a", "1"), ("b", "2")]));
        progress.refused(both, "duplicate", now);
        for _ in 0..2 * RETRIES {
            assert_eq!(progress.failed(now), Failure::MayPass);
        }
        assert_eq!(progress.look_again_at(), Some(now + GONE_FOR));
        let alone = set(&[("b", "2")]);
        assert_eq!(progress.read(alone.clone(), Wake::Announced, now + GONE_FOR), Step::Load(alone));
    }

    #[test]
    fn a_refused_set_is_judged_again_when_asked_or_after_a_while() {
        let now = Instant::now();
        let bad = set(&[("a", "bad")]);
        let mut progress = with(&[("a", "1")], now);
        progress.refused(bad.clone(), "bad", now);
        assert_eq!(progress.read(bad.clone(), Wake::Announced, now), Step::StillRefused("bad".to_owned()));
        assert_eq!(progress.read(bad.clone(), Wake::Asked, now), Step::Load(bad.clone()));
        assert_eq!(progress.read(bad.clone(), Wake::Timer, now + JUDGE_AGAIN), Step::Load(bad));
    }

    #[test]
    fn a_refused_file_that_is_deleted_is_not_held() {
        let now = Instant::now();
        let mut progress = with(&[("a", "1")], now);
        progress.refused(set(&[("a", "1"), ("b", "bad")]), "bad", now);
        let good = set(&[("a", "1")]);
        assert_eq!(progress.read(good.clone(), Wake::Announced, now), Step::Load(good));
    }

    #[test]
    fn an_unreadable_folder_proves_no_absence() {
        let now = Instant::now();
        let mut progress = with(&[("a", "1")], now);
        assert_eq!(progress.read(Vec::new(), Wake::Announced, now), Step::InForce);
        progress.unreadable();
        assert_eq!(progress.read(Vec::new(), Wake::Announced, now + GONE_FOR), Step::InForce);
        assert_eq!(progress.look_again_at(), Some(now + 2 * GONE_FOR));
    }

    #[test]
    fn a_list_of_files_holds_nothing() {
        let now = Instant::now();
        let mut progress = Progress::new(false);
        progress.accepted(set(&[("z", "1"), ("a", "1")]), now);
        let new = set(&[("z", "2"), ("a", "1")]);
        assert_eq!(progress.read(new.clone(), Wake::Announced, now), Step::Load(new));
    }
}
