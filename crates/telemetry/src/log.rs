//! Where log lines go: standard output for the daemon, text unless JSON is asked for.
//!
//! The format does not depend on whether the output is a terminal: `docker compose logs` is none, and its readers would get JSON.
//! Colour is never written: escape sequences in a log file hurt more than they help.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

pub use crate::filter::{Filter, FilterError};
pub use crate::output::Output;

use crate::output::Flush;

/// Format of the log lines.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// `key=value` text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Shows and changes which lines are written, while the process runs. A clone is a pointer.
#[derive(Clone)]
pub struct Control(Arc<Mutex<Inner>>);

struct Inner {
    filter: Filter,
    in_force: Handle<Targets, Registry>,
}

impl Control {
    fn new(filter: Filter, in_force: Handle<Targets, Registry>) -> Self {
        Self(Arc::new(Mutex::new(Inner { filter, in_force })))
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> Filter {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filter.clone()
    }

    /// Changes the filter in force, and says what it is then. See [`Filter::changed_by`].
    ///
    /// # Errors
    /// If the words make no filter; then nothing is changed.
    pub fn change(&self, words: &str) -> Result<Filter, String> {
        let change = Filter::parse(words).map_err(|error| error.to_string())?;
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let filter = inner.filter.changed_by(change).map_err(|error| error.to_string())?;
        inner.in_force.reload(filter.targets()).map_err(|error| error.to_string())?;
        inner.filter = filter.clone();
        Ok(filter)
    }
}

/// The log of this process. When it is dropped, it writes the lines that still wait, for a second at most.
pub struct Log {
    /// Shows and changes which lines are written.
    pub control: Control,
    /// Where they go.
    pub output: Output,
    _flush: Flush,
}

/// Installs the subscriber of this process. `filter` is `level` or `target=level,...`.
///
/// # Errors
/// If the filter cannot be parsed, or a subscriber is already there.
pub fn init(format: Format, filter: &str) -> Result<Log, String> {
    let filter = Filter::parse(filter).map_err(|error| format!("log level \"{}\": {error}", filter.escape_debug()))?;
    let (output, flush) = Output::threaded().map_err(|error| format!("cannot start a thread for the log: {error}"))?;
    let writer = output.clone();
    let (targets, in_force) = reload::Layer::new(filter.targets());
    // Without the last, a closed pipe would turn each lost line into one on standard error.
    let lines = fmt::layer().with_writer(move || writer.clone()).with_ansi(false).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(targets);
    let done = match format {
        Format::Text => registry.with(lines).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    done.map_err(|error| error.to_string())?;
    Ok(Log { control: Control::new(filter, in_force), output, _flush: flush })
}
