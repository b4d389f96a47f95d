//! Requests to a running proxy, by signal or over the admin address, and the drain that ends it.
//!
//! SIGTERM, SIGINT and `/quitquitquit` start the drain; a second one ends it at once. SIGHUP reloads. The proxy starts no
//! processes, but as PID 1 of a container it becomes the parent of orphans, which would fill the process table: they are
//! reaped here.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::defaults;
use portcullis_proxy::drain::{DrainTrigger, Phase};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::signals::reap;

/// Requests from the admin address. Each is kept until it is served.
#[derive(Default)]
pub(super) struct AdminRequests {
    shutdown: Notify,
    drain_listeners: Notify,
}

impl AdminRequests {
    /// Shut down, as on SIGTERM.
    pub(super) fn shutdown(&self) {
        self.shutdown.notify_one();
    }

    /// Close the inbound listeners, and keep the process and its connections.
    pub(super) fn drain_listeners(&self) {
        self.drain_listeners.notify_one();
    }
}

/// A request to the running proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Request {
    Shutdown,
    DrainListeners,
    Reload,
}

/// Where requests come from.
pub(super) struct Requests<'a> {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    child: Signal,
    admin: &'a AdminRequests,
}

impl<'a> Requests<'a> {
    /// Handles signals from here on. Needs a runtime.
    ///
    /// # Errors
    /// If the system refuses a handler.
    pub(super) fn listen(admin: &'a Arc<AdminRequests>) -> std::io::Result<Self> {
        let requests = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
            admin,
        };
        // Children that ended before there was a handler.
        reap();
        Ok(requests)
    }

    /// Waits for the next request.
    pub(super) async fn next(&mut self) -> Request {
        loop {
            return tokio::select! {
                _ = self.terminate.recv() => Request::Shutdown,
                _ = self.interrupt.recv() => Request::Shutdown,
                () = self.admin.shutdown.notified() => Request::Shutdown,
                () = self.admin.drain_listeners.notified() => Request::DrainListeners,
                _ = self.hangup.recv() => Request::Reload,
                _ = self.child.recv() => {
                    reap();
                    continue;
                }
            };
        }
    }
}

/// The first phases of every drain: not ready, then no inbound listener.
pub(super) async fn close_inbound(trigger: &DrainTrigger) {
    trigger.advance(Phase::Unready);
    sleep(defaults::DRAIN_DELAY).await;
    trigger.advance(Phase::InboundClosed);
}

/// Drains until every connection has ended, the grace period is over, or `second_request` completes. Returns `true` if
/// connections had to be cut.
pub(super) async fn drain(trigger: &DrainTrigger, grace: Duration, second_request: impl Future<Output = ()>) -> bool {
    let deadline = Instant::now() + grace;
    tracing::info!(connections = trigger.live(), ?grace, "draining; a second signal ends at once");
    let drained = async {
        close_inbound(trigger).await;
        trigger.empty().await;
    };
    let clean = tokio::select! {
        done = timeout_at(deadline, drained) => done.is_ok(),
        () = second_request => false,
    };
    let forced = !clean && trigger.live() > 0;
    trigger.advance(Phase::Forced);
    forced
}
