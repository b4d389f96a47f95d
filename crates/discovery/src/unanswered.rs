//! Why a sidecar gave no answer.

use std::io;
use std::time::Duration;

/// Why there is no answer.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unanswered {
    /// Nobody listens there.
    #[error("connection refused: no admin server listens there")]
    Refused,
    /// There is no such socket.
    #[error("there is no such socket")]
    NoSocket,
    /// The socket belongs to somebody else.
    #[error("permission denied: the socket is for the user of the sidecar (admin.socketMode can open it to its group)")]
    Denied,
    /// No whole answer within the deadline.
    #[error("no answer within {} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The server refuses the request.
    #[error("the admin server refuses to answer: {0}")]
    Forbidden(String),
    /// The server is something else, or answers in another form.
    #[error("this is no sidecar's answer: {0}")]
    NotASidecar(String),
    /// A sidecar, but of a version that does not have what is asked for.
    #[error("the sidecar is older than this command: it does not have {0}")]
    TooOld(String),
    /// More than is read.
    #[error("{0}")]
    TooLarge(String),
    /// Anything else that the operating system says.
    #[error("{0}")]
    Unreachable(String),
}

impl Unanswered {
    /// The word for programs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::NoSocket => "no-socket",
            Self::Denied => "denied",
            Self::TimedOut(_) => "timeout",
            Self::Forbidden(_) => "forbidden",
            Self::NotASidecar(_) => "not-a-sidecar",
            Self::TooOld(_) => "too-old",
            Self::TooLarge(_) => "too-large",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// What a failed request says.
    pub(crate) fn from_io(error: &io::Error, within: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::NotFound => Self::NoSocket,
            io::ErrorKind::PermissionDenied => Self::Denied,
            io::ErrorKind::TimedOut => Self::TimedOut(within),
            io::ErrorKind::FileTooLarge => Self::TooLarge(error.to_string()),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Self::NotASidecar(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
