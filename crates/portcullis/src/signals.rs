//! Signals and ended children, for a process that may be PID 1 of its container.
//!
//! For PID 1 the kernel has no default action for signals, so without a handler SIGTERM would do nothing; and PID 1 becomes
//! the parent of orphans, which would fill the process table unless they are reaped.

use std::io;
use std::iter;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The signals that this process handles, in order of arrival.
pub(crate) struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// From here on these signals are received here and have no other effect. Needs a runtime.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(crate) fn listen(wanted: &[Signal]) -> io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for wanted in wanted.iter().copied() {
            let mut arrivals = signal(SignalKind::from_raw(wanted.as_raw()))?;
            let sender = sender.clone();
            tokio::spawn(async move { while arrivals.recv().await.is_some() && sender.send(wanted).is_ok() {} });
        }
        Ok(Self(receiver))
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            // Only when the runtime is shutting down.
            None => std::future::pending().await,
        }
    }
}

/// Every child that has ended and was not reaped yet.
pub(crate) fn ended_children() -> impl Iterator<Item = (Pid, WaitStatus)> {
    iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten())
}

/// Reaps every child that has ended.
pub(crate) fn reap() {
    ended_children().for_each(drop);
}
