//! Errors of a renewal. Each has a stable reason for logs and metrics.

use std::time::Duration;

use portcullis_tls::CredentialError;
use tonic::{Code, Status};

use crate::schedule::FailureKind;

/// How much of a remote message is repeated, in characters.
const MAX_MESSAGE_CHARS: usize = 200;

/// Why a source gave nothing that can be used. `Display` says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A local file or key is missing or invalid. No request was sent.
    #[error("{message}")]
    Local {
        /// Its name.
        reason: &'static str,
        /// What it is.
        message: String,
        /// A file is not there, such as one that the authority writes when it starts.
        missing: bool,
    },
    /// The connection was refused, or the name cannot be resolved.
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
    /// It refused the request.
    #[error("it refused: {} ({message})", code_name(*.code))]
    Refused {
        /// The code of gRPC.
        code: Code,
        /// What it said, cut and with harmful characters replaced.
        message: String,
        /// When it wants the next request.
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
    /// A peer would refuse these credentials.
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

    /// Converts the status of a failed call.
    pub(crate) fn from_status(status: &Status) -> Self {
        use std::error::Error as _;
        let message = clean(status.message());
        // The decoder's error for a message above the size limit.
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

/// Sanitises a remote text for our log: truncated, and without control characters.
pub(crate) fn clean(text: &str) -> String {
    let cut: String = text.chars().take(MAX_MESSAGE_CHARS).collect();
    cut.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_is_truncated_and_sanitised() {
        let status = Status::unauthenticated(format!("no\u{1b}[31m\n{}", "x".repeat(1000)));
        let error = FetchError::from_status(&status);
        let text = error.to_string();
        assert!(text.starts_with("it refused: unauthenticated (no?[31m?xxx") && text.len() < 260, "{text}");
        assert_eq!(error.reason(), "unauthenticated");
        assert_eq!(error.kind(), FailureKind::Remote { retry_after: None });
    }

    #[test]
    fn retry_after_is_taken_from_the_answer() {
        let mut status = Status::resource_exhausted("busy");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        let retry_after = Some(Duration::from_secs(7));
        assert_eq!(FetchError::from_status(&status).kind(), FailureKind::Remote { retry_after });
        status.metadata_mut().insert("retry-after", "soon".parse().unwrap());
        assert_eq!(FetchError::from_status(&status).kind(), FailureKind::Remote { retry_after: None });
    }
}
