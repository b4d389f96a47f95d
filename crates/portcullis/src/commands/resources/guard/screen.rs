//! What a person sees while a change is watched: a line that is renewed on a terminal, and lines that stay.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use crate::commands::age;
use crate::output;

/// Writes to standard error.
pub(super) struct Screen {
    is_terminal: bool,
    has_line: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { is_terminal, has_line: false }
    }

    /// A line that stays.
    pub(super) fn note(&mut self, line: &str) {
        self.clear();
        output::note(line);
    }

    /// The line that is renewed. Nothing if nobody looks.
    pub(super) fn progress(&mut self, line: &str) {
        if self.is_terminal {
            self.has_line = true;
            let _unwritable = write!(io::stderr().lock(), "\r\x1b[K{}", output::clean(line));
        }
    }

    /// Takes it away.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.has_line) {
            let _unwritable = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

/// `9m12s`.
pub(super) fn length(duration: Duration) -> String {
    age::short(duration.as_secs_f64().ceil())
}
