//! Where log lines go: standard output for the daemon, text unless JSON is asked for.
//!
//! `docker compose logs` is no terminal, so a format chosen by "is it a terminal" would hand JSON to exactly the people
//! who read with their eyes. Colour is never written: escape sequences in a log file hurt more than they help.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::reload::Handle;

pub use crate::filter::{Filter, FilterError};
pub use crate::output::Output;

use crate::output::Flush;

/// Form of a log line.
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
    reload: Box<dyn Fn(EnvFilter) -> Result<(), String> + Send>,
}

impl Control {
    fn new<S: 'static>(filter: Filter, handle: Handle<EnvFilter, S>) -> Self {
        let reload = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        Self(Arc::new(Mutex::new(Inner { filter, reload })))
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
        (inner.reload)(env_filter(&filter)?)?;
        inner.filter = filter.clone();
        Ok(filter)
    }
}

/// The log of this process. Dropped, it writes what still waits, for a second at most.
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
    let builder = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_env_filter(env_filter(&filter)?)
        .with_ansi(false)
        // Otherwise a closed pipe would turn each lost line into one on standard error.
        .log_internal_errors(false);
    let (control, done) = match format {
        Format::Text => {
            let builder = builder.with_filter_reloading();
            (Control::new(filter, builder.reload_handle()), builder.try_init())
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            (Control::new(filter, builder.reload_handle()), builder.try_init())
        }
    };
    done.map_err(|error| error.to_string()).map(|()| Log { control, output, _flush: flush })
}

fn env_filter(filter: &Filter) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter.to_string()).map_err(|error| error.to_string())
}
