//! Signals: SIGTERM and SIGINT drain, a second one ends at once, SIGHUP reloads.

use std::time::Duration;

use portcullis_proxy::drain::{DrainTrigger, Phase};
use portcullis_settings::defaults;
use portcullis_watch::Monitor;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout_at};

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Waits for a request to end; reloads meanwhile as often as asked.
    async fn end(&mut self, monitors: &[Option<Monitor>]) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::info!("reload requested by signal");
                    monitors.iter().flatten().for_each(Monitor::reload_now);
                }
            }
        }
    }
}

/// Returns when everything has ended: `true` if connections had to be cut.
pub(super) async fn until_ended(
    grace: Duration,
    trigger: &DrainTrigger,
    monitors: &[Option<Monitor>],
) -> anyhow::Result<bool> {
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    };
    signals.end(monitors).await;
    let deadline = Instant::now() + grace;
    tracing::info!(connections = trigger.live(), ?grace, "draining; a second signal ends at once");
    trigger.advance(Phase::Unready);
    let drained = async {
        tokio::time::sleep(defaults::DRAIN_DELAY).await;
        trigger.advance(Phase::InboundClosed);
        trigger.empty().await;
    };
    let clean = tokio::select! {
        done = timeout_at(deadline, drained) => done.is_ok(),
        () = signals.end(monitors) => false,
    };
    let forced = !clean && trigger.live() > 0;
    trigger.advance(Phase::Forced);
    Ok(forced)
}
