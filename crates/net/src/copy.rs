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
mod limits;
mod outcome;
mod session;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use portcullis_buffers::{Charge, Usage};
use tokio::time::{Instant, sleep, timeout_at};

use crate::duplex::{Duplex, reset_both};
use session::Session;

pub use limits::{ByteCounts, CopyLimits, HALF_CLOSE_TIMEOUT};
pub use outcome::{Copied, CopyEnd, FlowEnd, IoOperation, Side};

/// Longest pause between two looks at whether the last bytes before a reset have been sent.
const MAX_DRAIN_PAUSE: Duration = Duration::from_millis(50);

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
