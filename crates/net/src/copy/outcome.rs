//! How a copy ended, and each of its directions.

use std::io;

/// The two ends of a forwarded connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// The side that dialled us.
    Downstream,
    /// The side that we dialled.
    Upstream,
}

impl Side {
    /// The opposite end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Downstream => Self::Upstream,
            Self::Upstream => Self::Downstream,
        }
    }

    /// A short, stable name for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
        }
    }
}

/// What was being done when something failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum IoOperation {
    /// Reading from the side.
    Read,
    /// Writing to it.
    Write,
    /// Ending our direction to it.
    Shutdown,
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CopyEnd {
    /// Both directions ended and everything was delivered.
    Clean,
    /// No byte moved for the idle limit.
    IdleTimeout,
    /// One direction had ended, and no byte moved in the other for the half-close limit.
    HalfCloseTimeout,
    /// One side reset its connection, or closed it while there was still something to be sent to it.
    Reset {
        /// The side that did.
        by: Side,
    },
    /// One side's bytes were cut off: the stream knows that more was to come (TLS without close_notify).
    Truncated {
        /// The side whose bytes were cut off.
        by: Side,
    },
    /// Anything else.
    Error {
        /// The side whose stream failed.
        side: Side,
        /// What was being done.
        operation: IoOperation,
        /// What it failed with.
        kind: io::ErrorKind,
    },
}

impl CopyEnd {
    /// A short, stable name for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::IdleTimeout => "idle_timeout",
            Self::HalfCloseTimeout => "half_close_timeout",
            Self::Reset { .. } => "reset",
            Self::Truncated { .. } => "truncated",
            Self::Error { .. } => "error",
        }
    }
}

/// How the bytes of one side ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowEnd {
    /// Not at all, when the copy ended.
    Open,
    /// Cleanly, and the end was passed on.
    Finished,
    /// Truncated (TLS without close_notify), but after our own direction to that side had ended, when it could no longer answer
    /// anything. Passed on as a clean end.
    TruncatedAfterClose,
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Copied {
    /// Why it ended.
    pub end: CopyEnd,
    /// How downstream's bytes ended.
    pub from_downstream: FlowEnd,
    /// How upstream's bytes ended.
    pub from_upstream: FlowEnd,
}

impl Copied {
    /// The side that left out its clean end when that did no harm any more; to be counted, no more.
    #[must_use]
    pub fn truncated_after_close(&self) -> Option<Side> {
        match (self.from_downstream, self.from_upstream) {
            (FlowEnd::TruncatedAfterClose, _) => Some(Side::Downstream),
            (_, FlowEnd::TruncatedAfterClose) => Some(Side::Upstream),
            _ => None,
        }
    }
}
