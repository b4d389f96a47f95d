//! The watching thread: wait, look, decide, load, tell. One look after the other, so nothing here needs a lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::file::FileContent;
use crate::notice::Notice;
use crate::progress::{Failure, Progress, Step};
use crate::signals::{Signals, Wake};
use crate::source::{Reading, Source};
use crate::status::{Monitor, Problem};

/// The loader with its types erased: what it says about a set it took, or why it refused it.
pub(crate) type Loader = Box<dyn FnMut(&[FileContent]) -> Result<String, String> + Send>;

/// A small set is read so often. Less than two seconds, since a change that only the rescan sees must be in force within
/// two seconds, and it is looked at twice.
const SMALL_RESCAN: Duration = Duration::from_millis(1500);
const SMALL_BYTES: usize = 1024 * 1024;
const SMALL_FILES: usize = 100;

/// New folders appear while we look at most so often before a look is accepted as it is.
const FOLLOW_ROUNDS: usize = 4;

const PANIC: &str = "loading the files ended in a panic";

pub(crate) struct Engine {
    pub(crate) source: Source,
    pub(crate) notice: Option<Notice>,
    pub(crate) signals: Arc<Signals>,
    pub(crate) monitor: Monitor,
    pub(crate) progress: Progress,
    pub(crate) loader: Loader,
    /// How often a large set is read without being told to.
    pub(crate) rescan_interval: Duration,
}

impl Engine {
    /// Watches until it is stopped.
    pub(crate) fn run(mut self, mut rescan_after: Duration) {
        loop {
            let rescan = Instant::now() + rescan_after;
            let until = self.progress.look_again_at().map_or(rescan, |soon| soon.min(rescan));
            let wake = self.signals.wait(until);
            if wake == Wake::Stop {
                return;
            }
            // A panic is a bug in the loader, most likely; it must not end the reloads for good.
            match catch_unwind(AssertUnwindSafe(|| self.look(wake))) {
                Ok(interval) => rescan_after = interval,
                Err(_) => {
                    self.progress.unreadable();
                    self.failed("refused", PANIC.to_owned());
                }
            }
        }
    }

    /// Reads the set once and acts on it; returns when to read it again at the latest.
    fn look(&mut self, wake: Wake) -> Duration {
        let reading = read_and_follow(&self.source, self.notice.as_mut());
        let interval = rescan_after(&reading, self.rescan_interval);
        let reason = reading.errors.first().map_or("unreadable", |error| error.reason());
        match reading.complete() {
            Ok(files) => self.decide(files, wake),
            Err(errors) => {
                self.progress.unreadable();
                self.failed(reason, errors.to_string());
            }
        }
        interval
    }

    fn decide(&mut self, files: Vec<FileContent>, wake: Wake) {
        match self.progress.read(files, wake, Instant::now()) {
            Step::Wait => {}
            Step::InForce => self.in_force(wake),
            Step::StillRefused(why) => self.failed("refused", why),
            Step::Load(files) => self.load(files),
        }
    }

    fn load(&mut self, files: Vec<FileContent>) {
        // Written down first, so that a loader that panics is not called again with the same set at every look.
        self.progress.refused(files.clone(), PANIC, Instant::now());
        match (self.loader)(&files) {
            Ok(summary) => self.loaded(files, summary),
            Err(message) => {
                self.progress.refused(files, &message, Instant::now());
                self.failed("refused", message);
            }
        }
    }

    fn loaded(&mut self, files: Vec<FileContent>, summary: String) {
        let count = files.len();
        self.progress.accepted(files, Instant::now());
        let mut status = self.monitor.lock();
        status.generation += 1;
        status.loaded_at = SystemTime::now();
        status.problem = None;
        tracing::info!(source = %self.source, files = count, generation = status.generation, %summary, "reloaded");
        status.summary = summary;
    }

    /// The files are just what is in force.
    fn in_force(&mut self, wake: Wake) {
        self.progress.fine();
        let problem = self.monitor.lock().problem.take();
        if problem.is_some() {
            tracing::info!(source = %self.source, "the files are good again, and are what is in force");
        } else if wake == Wake::Asked {
            tracing::info!(source = %self.source, "reload asked for: nothing has changed");
        }
    }

    /// Keeps what is in force. Says so once for every different problem, when it is certain to be one.
    fn failed(&mut self, reason: &'static str, message: String) {
        if self.progress.failed(Instant::now()) == Failure::MayPass {
            return;
        }
        let mut status = self.monitor.lock();
        let since = status.problem.as_ref().map_or_else(SystemTime::now, |problem| problem.since);
        let problem = Problem { reason, message, since };
        if status.problem.as_ref() != Some(&problem) {
            let generation = status.generation;
            // One line a problem, whatever it is made of.
            let text = problem.message.replace('\n', "; ");
            let cause = problem.reason;
            tracing::error!(
                source = %self.source, generation, cause, problem = %text, "kept the last good files in force"
            );
            status.problems += 1;
            status.problem = Some(problem);
        }
    }
}

/// Reads the set with watches in place: whatever changes after this look is announced, as far as inotify can tell.
pub(crate) fn read_and_follow(source: &Source, mut notice: Option<&mut Notice>) -> Reading {
    let mut reading = source.read();
    for _ in 0..FOLLOW_ROUNDS {
        let Some(notice) = notice.as_mut() else { break };
        if !notice.follow(&reading.interest) {
            break;
        }
        reading = source.read();
    }
    reading
}

/// When to read again. Trouble makes a set small: it is to be found quickly that it is mended.
pub(crate) fn rescan_after(reading: &Reading, interval: Duration) -> Duration {
    let bytes: usize = reading.files.iter().map(|file| file.content.len()).sum();
    if bytes <= SMALL_BYTES && reading.files.len() <= SMALL_FILES { interval.min(SMALL_RESCAN) } else { interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(files: usize, bytes: usize) -> Reading {
        let file =
            |n: usize| FileContent { path: n.to_string().into(), content: vec![b' '; bytes].into(), mode: 0o600 };
        Reading { files: (0..files).map(file).collect(), ..Reading::empty() }
    }

    #[test]
    fn only_a_small_set_is_read_every_other_second() {
        let slow = Duration::from_secs(30);
        for (files, bytes, expected) in [
            (0, 0, SMALL_RESCAN),
            (SMALL_FILES, 1, SMALL_RESCAN),
            (SMALL_FILES + 1, 1, slow),
            (1, SMALL_BYTES, SMALL_RESCAN),
            (2, SMALL_BYTES / 2 + 1, slow),
        ] {
            assert_eq!(rescan_after(&reading(files, bytes), slow), expected, "{files} files of {bytes} bytes");
        }
        let often = Duration::from_millis(200);
        assert_eq!(rescan_after(&reading(1, 1), often), often, "a shorter setting counts for small sets as well");
    }
}
