//! The proxy's own configuration: read once, at the start. A later change is reported, and requires a restart.

use crate::config_source::ConfigSource;

/// The configuration that the proxy started with.
pub(super) struct ConfigFile {
    source: ConfigSource,
    text: Vec<u8>,
}

/// How the file compares with what the proxy started with.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum ConfigChange {
    Unchanged,
    Changed,
    Unreadable(String),
}

impl ConfigFile {
    pub(super) const fn new(source: ConfigSource, text: Vec<u8>) -> Self {
        Self { source, text }
    }

    pub(super) const fn source(&self) -> &ConfigSource {
        &self.source
    }

    /// Compares the bytes; they are not parsed before the next start.
    pub(super) fn change(&self) -> ConfigChange {
        // The environment and standard input of a running process do not change.
        if self.source.file().is_none() {
            return ConfigChange::Unchanged;
        }
        match self.source.read() {
            Ok(text) if text == self.text => ConfigChange::Unchanged,
            Ok(_) => ConfigChange::Changed,
            Err(error) => ConfigChange::Unreadable(format!("{error:#}")),
        }
    }

    /// Logs that a reload did not apply the file, if it has changed.
    pub(super) fn log_change(&self) {
        let file = &self.source;
        match self.change() {
            ConfigChange::Unchanged => {}
            ConfigChange::Changed => {
                tracing::warn!(%file, "restart needed: the configuration has changed since the start");
            }
            ConfigChange::Unreadable(error) => {
                tracing::warn!(%file, error, "the configuration cannot be read, so it is unknown whether a restart is needed");
            }
        }
    }
}
