//! A watcher whose loader joins all files into one text, refuses what contains `BAD`, and tells what it took and when.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_reload::{FileContent, FileSet, Options, ReloadStatus, StartError, Watcher};

/// Every change has to be in force so soon.
pub(crate) const IN_TIME: Duration = Duration::from_secs(2);
/// The deadline of an event that a test waits for without a claim about its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Watched {
    pub(crate) watcher: Watcher,
    accepted: Arc<Mutex<Vec<(Instant, String)>>>,
}

pub(crate) fn watch(set: FileSet, inotify: bool) -> Result<Watched, StartError<String>> {
    watch_with(set, Options { inotify, ..Options::default() })
}

/// Without inotify, and with a rescan so often that a test need not wait for it.
pub(crate) fn watch_by_rescan(path: &Path) -> Watched {
    let options = Options { inotify: false, rescan_interval: Duration::from_millis(100) };
    watch_with(FileSet::Folder(path.to_owned()), options).unwrap()
}

fn watch_with(set: FileSet, options: Options) -> Result<Watched, StartError<String>> {
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&accepted);
    let loader = move |files: &[FileContent]| {
        let texts: Vec<String> = files.iter().map(|file| String::from_utf8_lossy(&file.content).into_owned()).collect();
        let text = texts.join("|");
        if text.contains("PANIC") {
            // Without the panic hook: where RUST_BACKTRACE is set, it would read all debug information for each retry.
            std::panic::resume_unwind(Box::new("as the test asked for"));
        }
        if text.contains("BAD") {
            return Err(format!("refused {text}"));
        }
        log.lock().unwrap().push((Instant::now(), text.clone()));
        Ok(text)
    };
    Watcher::start(set, options, loader).map(|watcher| Watched { watcher, accepted })
}

pub(crate) fn watch_folder(path: &Path) -> Watched {
    watch(FileSet::Folder(path.to_owned()), true).unwrap()
}

impl Watched {
    pub(crate) fn in_force(&self) -> String {
        self.accepted.lock().unwrap().last().unwrap().1.clone()
    }

    /// All that was ever in force.
    pub(crate) fn history(&self) -> Vec<String> {
        self.accepted.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    pub(crate) fn status(&self) -> ReloadStatus {
        self.watcher.monitor().status()
    }

    /// Waits until `text` is in force; says how long after `since` it was.
    pub(crate) fn expect(&self, text: &str, since: Instant, within: Duration) -> Duration {
        let seen = poll(within + Duration::from_secs(3), || {
            let accepted = self.accepted.lock().unwrap();
            accepted.last().filter(|(_, last)| last == text).map(|(at, _)| *at)
        });
        let took =
            seen.unwrap_or_else(|| panic!("{text:?} never in force: {:?}", self.history())).duration_since(since);
        assert!(took <= within, "{text:?} in force only after {took:?}");
        took
    }

    pub(crate) fn expect_problem(&self, reason: &str) -> String {
        let problem = poll(PATIENCE, || self.status().problem.filter(|problem| problem.reason == reason));
        problem.unwrap_or_else(|| panic!("no problem {reason}: {:?}", self.status())).message
    }

    pub(crate) fn expect_no_problem(&self) {
        assert!(poll(PATIENCE, || self.status().problem.is_none().then_some(())).is_some(), "{:?}", self.status());
    }
}

pub(crate) fn poll<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        match ask() {
            Some(answer) => return Some(answer),
            None if Instant::now() > end => return None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

/// Write a temporary file in the same folder and rename it into place.
pub(crate) fn rename_into_place(path: &Path, text: &str) {
    let temporary: PathBuf = path.with_extension("tmp");
    write(&temporary, text);
    fs::rename(&temporary, path).unwrap();
}
