//! Signals, and children that have ended, for a process that may be PID 1 of its container.
//!
//! The kernel gives PID 1 no default action for a signal, so without a handler SIGTERM would do nothing there; and PID 1
//! becomes the parent of whatever others leave behind, which would fill the process table unless it is reaped.

use std::io;
use std::iter;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The signals that this process listens to, in the order in which they come.
pub(crate) struct Signals(mpsc::UnboundedReceiver<Signal>);

impl Signals {
    /// From here on these signals are told and have no other effect. Needs a runtime.
    ///
    /// # Errors
    /// If the system refuses to tell of one.
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
            // Only if the runtime is ending, and us with it.
            None => std::future::pending().await,
        }
    }
}

/// Every child that has ended by now and was not taken note of.
pub(crate) fn ended_children() -> impl Iterator<Item = (Pid, WaitStatus)> {
    iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten())
}

/// Takes note of every child that has ended.
pub(crate) fn reap() {
    ended_children().for_each(drop);
}
