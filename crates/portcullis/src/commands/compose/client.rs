//! Runs Compose: the plugin of docker, or docker-compose.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::exit::{Exit, Failure};
use crate::output;

/// Images may have to be pulled and built.
const DEADLINE: Duration = Duration::from_secs(30 * 60);
const PAUSE: Duration = Duration::from_millis(50);

/// How Compose is called in the folder of a project.
pub(super) struct Client {
    words: &'static [&'static str],
    folder: PathBuf,
}

impl Client {
    /// The first that there is.
    ///
    /// # Errors
    /// If there is none.
    pub(super) fn find(folder: &Path) -> Result<Self, Failure> {
        const KNOWN: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let answers = |words: &&[&str]| {
            let mut command = command(words);
            command.arg("version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let found = KNOWN.into_iter().find(answers).map(|words| Self { words, folder: folder.to_owned() });
        found.ok_or_else(|| {
            let message = "neither `docker compose` nor docker-compose can be run here; use --write, and run on the host what it says";
            Failure::message(Exit::Failure, message)
        })
    }

    /// Runs a subcommand, shows it, and waits for its end.
    pub(super) fn run(&self, subcommand: &[&str], services: &[String]) -> Result<(), Failure> {
        let words = subcommand.iter().copied().chain(services.iter().map(String::as_str));
        let shown = self.words.iter().copied().chain(words.clone()).collect::<Vec<_>>().join(" ");
        output::note(&format!("$ {shown}"));
        let mut command = command(self.words);
        command.args(words).current_dir(&self.folder).stdin(Stdio::null());
        // Its answer is no answer of ours.
        command.stdout(std::io::stderr());
        let mut child = command.spawn().with_context(|| shown.clone())?;
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().with_context(|| shown.clone())? {
                let failed = || Failure::message(Exit::Failure, format!("`{shown}` failed: {status}"));
                return if status.success() { Ok(()) } else { Err(failed()) };
            }
            if begun.elapsed() > DEADLINE {
                child.kill().and_then(|()| child.wait()).with_context(|| shown.clone())?;
                return Err(Failure::message(
                    Exit::Failure,
                    format!("`{shown}` did not end within {} minutes", DEADLINE.as_secs() / 60),
                ));
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn command(words: &[impl AsRef<OsStr>]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().map_or_else(|| OsStr::new("docker-compose"), AsRef::as_ref));
    command.args(words);
    command
}
