//! Forwarding bytes between two streams until both directions have ended, or something ends them.
//!
//! What is guaranteed, and tested:
//! - Bytes arrive in order and complete, or the receiver gets a reset. An end that was not clean
//!   (a reset, TLS cut off without its close_notify, an error, a timeout) is never passed on as a clean one.
//! - Half-close works both ways: the end of one direction is passed on after its last byte, and the other direction goes
//!   on, as long as bytes move in it.
//! - Memory is bounded whatever the speeds: one buffer for a direction whose receiver does not keep up, none for one that
//!   has nothing in hand; and where the budget for that is spent, none either, or one small piece.
//! - A busy connection lets others have a turn.
//!
//! What it does not do: decide when a connection should be cut. Callers race it and drop it; see [`crate::reset_both`].

mod flow;
mod session;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_buffers::{Charge, Usage};
use tokio::time::{Instant, sleep, timeout_at};

use crate::duplex::{Duplex, reset_both};
use session::Session;

/// How long one direction may stay without a byte after the other has ended.
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Longest pause between two looks at whether the last bytes before a reset have been sent.
const MAX_DRAIN_PAUSE: Duration = Duration::from_millis(50);

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

/// Time limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CopyLimits {
    /// Longest silence in both directions; `None` for no limit.
    pub idle: Option<Duration>,
    /// Longest silence once one direction has ended.
    pub half_close: Duration,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { idle: None, half_close: HALF_CLOSE_TIMEOUT }
    }
}

/// Bytes forwarded so far, in each direction. They are counted when the receiving side has taken them, and can be read
/// at any time.
#[derive(Clone, Debug, Default)]
pub struct ByteCounts {
    /// From downstream to upstream.
    pub from_downstream: Arc<AtomicU64>,
    /// From upstream to downstream.
    pub from_upstream: Arc<AtomicU64>,
}

impl ByteCounts {
    /// Both counts, downstream's first.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.from_downstream.load(Ordering::Relaxed), self.from_upstream.load(Ordering::Relaxed))
    }
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

/// Copies in both directions until both have ended or `limits` or a failure ends them.
///
/// What has to be kept for a receiver that does not keep up is charged to `usage`.
///
/// On return the streams are to be dropped at once: where a side must learn that what it got is not the whole, its close
/// has been made a reset. That is the other side of a [`CopyEnd::Reset`], [`CopyEnd::Truncated`] or [`CopyEnd::Error`],
/// and both after a timeout. After `Truncated`, everything that came has been sent before (for at most the half-close
/// limit, should the receiver not take it).
///
/// If the future is dropped, bytes in hand are lost with it; the streams are then to be reset, not closed.
pub async fn bidirectional<D: Duplex, U: Duplex>(
    downstream: &mut D,
    upstream: &mut U,
    limits: &CopyLimits,
    counts: &ByteCounts,
    usage: &Usage,
) -> Copied {
    // In here and not in a future of its own, which would hold everything that is passed to it once more.
    let copied = {
        // Where there is no idle limit it is not looked at, let alone registered, until one direction has ended.
        let mut timer = std::pin::pin!(sleep(limits.idle.unwrap_or_default()));
        let mut session = Session::new(downstream, upstream, limits, counts, Charge::new(usage));
        poll_fn(|cx| session.poll(cx, timer.as_mut())).await
    };
    match copied.end {
        CopyEnd::Clean => {}
        CopyEnd::IdleTimeout | CopyEnd::HalfCloseTimeout => reset_both(downstream, upstream),
        CopyEnd::Truncated { by } => {
            let charge = Charge::of(usage, downstream.held() + upstream.held());
            match by {
                Side::Downstream => deliver_and_reset(upstream, limits, charge).await,
                Side::Upstream => deliver_and_reset(downstream, limits, charge).await,
            }
        }
        CopyEnd::Reset { by: side } | CopyEnd::Error { side, .. } => {
            // It fails only for a side that is closed already, and that side has nothing left to learn.
            let _ = match side {
                Side::Downstream => upstream.reset_on_close(),
                Side::Upstream => downstream.reset_on_close(),
            };
        }
    }
    copied
}

/// Sends what is still in hand, then makes the close a reset. A reset discards what the kernel has not sent, so it waits
/// for that. What the streams hold stays charged meanwhile.
async fn deliver_and_reset<IO: Duplex>(receiver: &mut IO, limits: &CopyLimits, _charge: Charge<'_>) {
    let deadline = Instant::now() + limits.half_close;
    let flushed = timeout_at(deadline, poll_fn(|cx| Pin::new(&mut *receiver).poll_flush(cx))).await;
    if matches!(flushed, Ok(Ok(()))) {
        let mut pause = Duration::from_millis(1);
        while !receiver.all_sent() && Instant::now() < deadline {
            sleep(pause).await;
            pause = (pause * 2).min(MAX_DRAIN_PAUSE);
        }
    }
    let _ = receiver.reset_on_close();
}

#[cfg(test)]
mod tests;
