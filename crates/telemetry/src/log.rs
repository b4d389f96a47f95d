//! Where log lines go: standard output for the daemon, text unless JSON is asked for.
//!
//! `docker compose logs` is no terminal, so a format chosen by "is it a terminal" would hand JSON to exactly the people
//! who read with their eyes. Colour is never written: escape sequences in a log file hurt more than they help.

use tracing_subscriber::EnvFilter;

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// `key=value` text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber of this process. `filter` is `level` or `target=level,...`.
///
/// # Errors
/// If the filter cannot be parsed, or a subscriber is already there.
pub fn init(format: Format, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log level \"{filter}\": {error}"))?;
    // Without `log_internal_errors(false)` a closed pipe would turn each lost line into one on standard error.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).log_internal_errors(false);
    let done = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|error| error.to_string())
}
