//! The proxy's own configuration file: read once, at the start. That it has changed since is said, and not acted upon.

use crate::commands::config::Place;

/// The file as it was when the proxy started.
pub(super) struct OwnFile {
    place: Place,
    text: Vec<u8>,
}

/// How the file is now.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Now {
    Same,
    Changed,
    Unreadable(String),
}

impl OwnFile {
    pub(super) const fn new(place: Place, text: Vec<u8>) -> Self {
        Self { place, text }
    }

    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Compares the bytes: what they mean is not looked at before the next start.
    pub(super) fn now(&self) -> Now {
        match self.place.read() {
            Ok(text) if text == self.text => Now::Same,
            Ok(_) => Now::Changed,
            Err(error) => Now::Unreadable(format!("{error:#}")),
        }
    }

    /// Says in the log what a reload does not do.
    pub(super) fn tell(&self) {
        let file = &self.place;
        match self.now() {
            Now::Same => {}
            Now::Changed => tracing::warn!(%file, "restart needed: the configuration has changed since the start"),
            Now::Unreadable(error) => {
                tracing::warn!(%file, error, "the configuration cannot be read, so nobody knows whether a restart is needed");
            }
        }
    }
}
