//! How it ends: SIGTERM, SIGINT or the admin address drain, a second one ends at once, SIGHUP reloads, and says if a restart is needed.
//!
//! The proxy starts no processes, but as PID 1 of a container it becomes the parent of those that others leave behind there,
//! and the process table of the container would fill with what they leave. They are reaped, whoever we are.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::defaults;
use portcullis_proxy::drain::{DrainTrigger, Phase};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::own_file::OwnFile;
use crate::signals::reap;

/// What the admin address wants. A wish is kept until it is seen.
#[derive(Default)]
pub(super) struct Wishes {
    quit: Notify,
    drain_listeners: Notify,
}

impl Wishes {
    /// As if SIGTERM had come.
    pub(super) fn quit(&self) {
        self.quit.notify_one();
    }

    /// Close the inbound listeners and go on.
    pub(super) fn drain_listeners(&self) {
        self.drain_listeners.notify_one();
    }
}

/// What requests come from besides signals, and what they act upon.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    pub(super) trigger: &'a Arc<DrainTrigger>,
    pub(super) wishes: &'a Wishes,
    /// Reads policies and credentials again.
    pub(super) reload: &'a dyn Fn(),
    pub(super) own_file: &'a OwnFile,
}

struct Requests<'a> {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    child: Signal,
    sources: Sources<'a>,
}

impl Requests<'_> {
    /// Waits for a request to end; does meanwhile what else is asked for.
    async fn end(&mut self) {
        let Sources { trigger, wishes, reload, own_file } = self.sources;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = wishes.quit.notified() => return,
                () = wishes.drain_listeners.notified() => {
                    tracing::info!(connections = trigger.live(), "draining the inbound listeners");
                    let trigger = Arc::clone(trigger);
                    tokio::spawn(async move { close_inbound(&trigger).await });
                }
                _ = self.child.recv() => reap(),
                _ = self.hangup.recv() => {
                    tracing::info!("reload requested by signal");
                    reload();
                    own_file.tell();
                }
            }
        }
    }
}

/// The first phases of every drain.
async fn close_inbound(trigger: &DrainTrigger) {
    trigger.advance(Phase::Unready);
    sleep(defaults::DRAIN_DELAY).await;
    trigger.advance(Phase::InboundClosed);
}

/// Returns when everything has ended: `true` if connections had to be cut.
pub(super) async fn until_ended(grace: Duration, sources: Sources<'_>) -> anyhow::Result<bool> {
    let trigger = sources.trigger;
    let mut requests = Requests {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
        child: signal(SignalKind::child())?,
        sources,
    };
    // Those that ended before anybody listened.
    reap();
    requests.end().await;
    let deadline = Instant::now() + grace;
    tracing::info!(connections = trigger.live(), ?grace, "draining; a second signal ends at once");
    let drained = async {
        close_inbound(trigger).await;
        trigger.empty().await;
    };
    let clean = tokio::select! {
        done = timeout_at(deadline, drained) => done.is_ok(),
        () = requests.end() => false,
    };
    let forced = !clean && trigger.live() > 0;
    trigger.advance(Phase::Forced);
    Ok(forced)
}
