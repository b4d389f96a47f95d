//! The watching thread: wait, read, decide, load, report. All of it runs on this thread, so nothing here needs a lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::events::Events;
use crate::file::FileContent;
use crate::file_set::FileSet;
use crate::inbox::{Inbox, Next, Wake};
use crate::origin::Origins;
use crate::reading::Reading;
use crate::reconciler::{Failure, Reconciler, Step};
use crate::status::{Monitor, Problem};

/// The loader with its types erased: a summary of the set it accepted, or why it refused it.
pub(crate) type Loader = Box<dyn FnMut(&[FileContent]) -> Result<String, String> + Send>;

/// How often a small set is rescanned. A change that only the rescan finds is read twice, the second time after
/// `CONFIRM_RESCAN_AFTER`, and must be in force within two seconds.
const SMALL_RESCAN: Duration = Duration::from_millis(1250);
const SMALL_BYTES: usize = 1024 * 1024;
const SMALL_FILES: usize = 100;

/// How often a set is read again because a folder came under watch meanwhile, at most.
const FOLLOW_ROUNDS: usize = 4;

/// The longest sleep.
const MAX_SLEEP: Duration = Duration::from_secs(3600);
/// The pause after `poll` has failed.
const POLL_ERROR_PAUSE: Duration = Duration::from_millis(100);

const PANIC: &str = "loading the files ended in a panic";

pub(crate) struct Engine {
    pub(crate) set: FileSet,
    pub(crate) events: Option<Events>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) monitor: Monitor,
    pub(crate) reconciler: Reconciler,
    /// Where the files in force were read.
    pub(crate) origins: Origins,
    pub(crate) loader: Loader,
    /// How often a large set is read without an event.
    pub(crate) rescan_interval: Duration,
}

impl Engine {
    /// Watches until it is stopped.
    pub(crate) fn run(mut self, mut rescan_after: Duration) {
        loop {
            let rescan = Instant::now() + rescan_after;
            let until = self.reconciler.read_again_at().map_or(rescan, |soon| soon.min(rescan));
            let wake = self.wait(until);
            if wake == Wake::Stop {
                return;
            }
            // A panic, most likely of the loader, must not end reloading.
            match catch_unwind(AssertUnwindSafe(|| self.reload(wake))) {
                Ok(interval) => rescan_after = interval,
                Err(_) => {
                    self.reconciler.unreadable();
                    self.failed("refused", PANIC.to_owned());
                }
            }
        }
    }

    /// Waits for a reason to read the set, and handles events meanwhile.
    fn wait(&mut self, until: Instant) -> Wake {
        loop {
            let now = Instant::now();
            let at = match self.inbox.take(until, now) {
                Next::Read(wake) => return wake,
                Next::WaitUntil(at) => at,
            };
            let Some(events) = &mut self.events else {
                sleep_until(at, now, &mut [readable(&self.inbox)]);
                continue;
            };
            let at = events.due(now).map_or(at, |due| due.min(at));
            match events.as_fd(now) {
                Some(queue) => {
                    let queue = PollFd::from_borrowed_fd(queue, PollFlags::IN);
                    sleep_until(at, now, &mut [readable(&self.inbox), queue]);
                }
                None => sleep_until(at, now, &mut [readable(&self.inbox)]),
            }
            events.work(Instant::now());
        }
    }

    /// Reads the set once and acts on it; returns when to read it again at the latest.
    fn reload(&mut self, wake: Wake) -> Duration {
        let mut reading = read_and_follow(&self.set, self.events.as_mut());
        let now = Instant::now();
        let all_events = self.events.as_mut().is_none_or(|events| events.catch_up(now));
        let wake = if !all_events && wake == Wake::Announced { Wake::Suspected } else { wake };
        let being_written = self.inbox.observe(|observed| observed.being_written(now));
        let held = reading.hold_back(&being_written.paths, self.reconciler.in_force());
        self.reconciler.set_writer_deadline(being_written.until.filter(|_| held));
        let interval = rescan_after(&reading, self.rescan_interval);
        let reason = reading.errors.first().map_or("unreadable", |error| error.reason());
        let origins = std::mem::take(&mut reading.origins);
        match reading.complete() {
            Ok(files) => self.check_origins(files, origins, wake),
            Err(errors) => {
                self.reconciler.unreadable();
                self.failed(reason, errors.to_string());
            }
        }
        interval
    }

    /// Continues with a set that was read, unless files are missing that were not removed.
    fn check_origins(&mut self, files: Vec<FileContent>, origins: Origins, wake: Wake) {
        let removals = self.inbox.observe(|observed| observed.removals());
        if let Some(error) = self.origins.lost(self.reconciler.in_force(), &origins, &removals) {
            self.reconciler.unreadable();
            return self.failed(error.reason(), error.to_string());
        }
        let present = origins.clone();
        self.decide(files, wake);
        self.origins.update(self.reconciler.in_force(), origins);
        self.inbox.observe(|observed| observed.forget_removals(&self.origins.paths(), &present.paths()));
    }

    fn decide(&mut self, files: Vec<FileContent>, wake: Wake) {
        match self.reconciler.read(files, wake, Instant::now()) {
            Step::Wait => {}
            Step::InForce => self.in_force(wake),
            Step::StillRefused(why) => self.failed("refused", why),
            Step::Load(files) => self.load(files),
        }
    }

    fn load(&mut self, files: Vec<FileContent>) {
        // Recorded first, so that a loader that panics is not called with the same set over and over.
        self.reconciler.refused(files.clone(), PANIC, Instant::now());
        match (self.loader)(&files) {
            Ok(summary) => self.loaded(files, summary),
            Err(message) => {
                self.reconciler.refused(files, &message, Instant::now());
                self.failed("refused", message);
            }
        }
    }

    fn loaded(&mut self, files: Vec<FileContent>, summary: String) {
        let count = files.len();
        self.reconciler.accepted(files, Instant::now());
        let mut status = self.monitor.lock();
        status.generation += 1;
        status.loaded_at = SystemTime::now();
        status.problem = None;
        tracing::info!(source = %self.set, files = count, generation = status.generation, %summary, "reloaded");
        status.summary = summary;
    }

    /// The files are the same as those in force.
    fn in_force(&mut self, wake: Wake) {
        self.reconciler.reset_failures();
        let problem = self.monitor.lock().problem.take();
        if problem.is_some() {
            tracing::info!(source = %self.set, "the files are good again, and are what is in force");
        } else if wake == Wake::Requested {
            tracing::info!(source = %self.set, "reload requested: nothing has changed");
        }
    }

    /// Keeps what is in force. Logs each different problem once, when it is not a write in progress.
    fn failed(&mut self, reason: &'static str, message: String) {
        if self.reconciler.failed(Instant::now()) == Failure::Transient {
            return;
        }
        let mut status = self.monitor.lock();
        let since = status.problem.as_ref().map_or_else(SystemTime::now, |problem| problem.since);
        let problem = Problem { reason, message, since };
        if status.problem.as_ref() != Some(&problem) {
            let generation = status.generation;
            // One line for a problem, however many errors it has.
            let text = problem.message.replace('\n', "; ");
            let cause = problem.reason;
            tracing::error!(
                source = %self.set, generation, cause, problem = %text, "kept the last good files in force"
            );
            status.problems += 1;
            status.problem = Some(problem);
        }
    }
}

/// Waits until one of `sources` is readable, or until `at`.
fn sleep_until(at: Instant, now: Instant, sources: &mut [PollFd<'_>]) {
    let left = at.saturating_duration_since(now).min(MAX_SLEEP);
    let timeout =
        Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
    if poll(sources, Some(&timeout)).is_err_and(|errno| errno != rustix::io::Errno::INTR) {
        std::thread::sleep(left.min(POLL_ERROR_PAUSE));
    }
}

fn readable(inbox: &Inbox) -> PollFd<'_> {
    PollFd::from_borrowed_fd(inbox.as_fd(), PollFlags::IN)
}

/// Reads the set with watches in place: whatever changes after it was read causes an event, as far as inotify can tell.
pub(crate) fn read_and_follow(set: &FileSet, mut events: Option<&mut Events>) -> Reading {
    let mut reading = set.read();
    for _ in 0..FOLLOW_ROUNDS {
        let Some(events) = events.as_mut() else { break };
        if !events.follow(&reading) {
            break;
        }
        reading = set.read();
    }
    reading
}

/// When to read again. A set with errors is small, so that a repair is found soon.
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
