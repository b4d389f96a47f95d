//! The interface to the proxy: the pages it supplies and the changes it makes.

use crate::{RecentQuery, Token, TokenError, Views};

/// The content of the responses. This crate handles HTTP and access control; the implementor supplies the content.
pub trait State: Views {
    /// `Ok` when ready, otherwise what is pending, in words.
    ///
    /// # Errors
    /// What is pending.
    fn ready(&self) -> Result<(), String>;
    /// All metrics in the Prometheus text format.
    fn metrics(&self) -> String;
    /// A few facts for the head of the index, as names and values.
    fn about(&self) -> Vec<(&'static str, String)>;
    /// A page, in JSON with a newline at its end.
    fn page(&self, page: Page) -> String;
    /// The connections that ended last, in JSON with a newline at its end.
    fn recent(&self, query: &RecentQuery) -> String;
    /// Which policy holds for a port and why, in JSON with a newline at its end.
    fn explain(&self, port: u16) -> String;
    /// The log filter in force.
    fn log_filter(&self) -> String;
    /// Changes the log filter; returns the new one.
    ///
    /// # Errors
    /// The problem with the filter.
    fn set_log_filter(&self, words: &str) -> Result<String, String>;
    /// Starts the change; must not wait for its end.
    fn change(&self, change: Change);
    /// What a change must show, read anew each time; `None` if no token is configured.
    ///
    /// # Errors
    /// If one is configured and cannot be used: then nothing may be changed.
    fn token(&self) -> Result<Option<Token>, TokenError>;
}

/// A page of facts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Page {
    /// `/config_dump`.
    ConfigDump,
    /// `/certs`.
    Certs,
    /// `/listeners`.
    Listeners,
    /// `/policies`.
    Policies,
    /// `/connections`.
    Connections,
    /// `/observations`.
    Observations,
    /// `/changes`.
    Changes,
    /// `/server_info`.
    ServerInfo,
    /// `/status`.
    Status,
}

/// A change of the running process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Change {
    /// Inbound listeners are drained and closed; the process stays.
    DrainListeners,
    /// The same as SIGTERM.
    Quit,
}
