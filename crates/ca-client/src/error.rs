//! Why there are no new credentials: every way has a name, for the log and for metrics.

use std::time::Duration;

use portcullis_tls::CredentialError;
use tonic::{Code, Status};

use crate::schedule::FailureKind;

/// As much of a foreign message is repeated.
const MAX_MESSAGE_CHARS: usize = 200;

/// Why a source gave nothing that can be used. `Display` says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Something of our own is missing or wrong: a file, the key. Nobody was asked.
    #[error("{message}")]
    Local {
        /// Its name.
        reason: &'static str,
        /// What it is.
        message: String,
        /// A file is not there, such as one that the authority writes when it starts.
        missing: bool,
    },
    /// Nobody listens there, or the name cannot be looked up.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The handshake failed: most often the server is not who it should be.
    #[error("TLS: {0}; see that trustBundle is of the authority's CA, and that serverName is in its certificate")]
    Tls(String),
    /// It took too long.
    #[error("no answer within {} s: {step}", .within.as_secs())]
    Deadline {
        /// What was waited for.
        step: &'static str,
        /// How long.
        within: Duration,
    },
    /// The connection ended or broke before there was an answer.
    #[error("the connection ended without an answer: {0}")]
    Connection(String),
    /// It answered, and said no.
    #[error("it refused: {} ({message})", code_name(*.code))]
    Refused {
        /// The code of gRPC.
        code: Code,
        /// What it said, cut and with harmful characters replaced.
        message: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answered with something that is not used.
    #[error("its answer is not used: {0}")]
    Answer(#[from] AnswerError),
}

/// Why an answer is not used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// More than is read.
    #[error("it is too large; {0}")]
    TooLarge(String),
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// The identity is not among those that were handed out.
    #[error("it has no SVID for {expected}, but {found}")]
    NotOurs {
        /// Who we are.
        expected: String,
        /// Whom it names, cut.
        found: String,
    },
    /// The bundles make no sense.
    #[error("its bundles: {0}")]
    Bundles(String),
    /// What it says of us would be refused by a peer.
    #[error(transparent)]
    Credentials(#[from] CredentialError),
}

impl FetchError {
    /// The stable name, for logs and metrics.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Local { reason, .. } => reason,
            Self::Connect(_) => "connect",
            Self::Tls(_) => "tls",
            Self::Deadline { .. } => "deadline",
            Self::Connection(_) => "connection",
            Self::Refused { code, .. } => code_name(*code),
            Self::Answer(error) => error.reason(),
        }
    }

    /// Whether it is what a source that has not started yet looks like.
    #[must_use]
    pub(crate) const fn may_be_startup(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Local { missing: true, .. })
    }

    /// How it changes when to try again.
    #[must_use]
    pub const fn kind(&self) -> FailureKind {
        match self {
            Self::Local { .. } => FailureKind::Local,
            Self::Refused { retry_after, .. } => FailureKind::Remote { retry_after: *retry_after },
            _ => FailureKind::Remote { retry_after: None },
        }
    }

    /// What a call came to that gave no message.
    pub(crate) fn from_status(status: &Status) -> Self {
        use std::error::Error as _;
        let message = clean(status.message());
        // The decoder's own verdict on a message that is longer than we read.
        if status.code() == Code::OutOfRange {
            return AnswerError::TooLarge(message).into();
        }
        if let Some(source) = status.source() {
            return Self::Connection(clean(&format!("{message}: {source}")));
        }
        let after = status.metadata().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Self::Refused { code: status.code(), message, retry_after }
    }
}

impl AnswerError {
    /// The stable name.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "answer-too-large",
            Self::Empty => "answer-empty",
            Self::NotOurs { .. } => "own-id",
            Self::Bundles(_) => "bundles",
            Self::Credentials(error) => error.class(),
        }
    }
}

/// The code as reasons are written.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission-denied",
        Code::InvalidArgument => "invalid-argument",
        Code::AlreadyExists => "already-exists",
        Code::ResourceExhausted => "resource-exhausted",
        Code::Unavailable => "unavailable",
        Code::Unimplemented => "unimplemented",
        Code::DeadlineExceeded => "deadline-exceeded",
        Code::NotFound => "not-found",
        Code::FailedPrecondition => "failed-precondition",
        Code::Internal => "internal",
        _ => "other-status",
    }
}

/// A text of somebody else, made fit for our log: short, and without anything that a terminal would act upon.
pub(crate) fn clean(text: &str) -> String {
    let cut: String = text.chars().take(MAX_MESSAGE_CHARS).collect();
    cut.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_is_cut_and_cleaned() {
        let status = Status::unauthenticated(format!("no\u{1b}[31m\n{}", "x".repeat(1000)));
        let error = FetchError::from_status(&status);
        let text = error.to_string();
        assert!(text.starts_with("it refused: unauthenticated (no?[31m?xxx") && text.len() < 260, "{text}");
        assert_eq!(error.reason(), "unauthenticated");
        assert_eq!(error.kind(), FailureKind::Remote { retry_after: None });
    }

    #[test]
    fn when_to_come_again_is_taken_from_the_answer() {
        let mut status = Status::resource_exhausted("busy");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(FetchError::from_status(&status).kind(), FailureKind::Remote { retry_after });
        status.metadata_mut().insert("retry-after", "soon".parse().unwrap());
        assert_eq!(FetchError::from_status(&status).kind(), FailureKind::Remote { retry_after: None });
    }
}
