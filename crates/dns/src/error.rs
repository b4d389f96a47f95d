//! What can go wrong: with the system's configuration, and with one lookup.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why the resolver cannot be configured from the system.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// A file is there, and cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// Why a lookup has no answer. "No such name" is an answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LookupError {
    /// The text is no domain name, or too long for one with a search domain.
    #[error("{name:?} is not a domain name: {why}")]
    NotAName {
        /// The text.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// A server answered with an error, such as SERVFAIL.
    #[error("{server} answered: {code}")]
    Refused {
        /// The server.
        server: SocketAddr,
        /// Its answer.
        code: String,
    },
    /// A server could not be asked, or did not answer in its share of the time.
    #[error("{server} cannot be asked: {why}")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// What happened.
        why: String,
    },
    /// No server is configured.
    #[error("no DNS server is configured")]
    NoServer,
}
