//! Graceful shutdown: become unready, stop accepting inbound connections, wait for the open ones, then close them by force.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use crate::changes::ChangeNotifier;

/// How far the shutdown has come. Phases only go forward.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Serving.
    Running,
    /// Unready but still accepting, so that load balancers can notice.
    Unready,
    /// No new inbound connections; outbound goes on, since the app may need it to finish.
    InboundClosed,
    /// Every connection is reset.
    Forced,
}

/// Moves the phase forward.
#[derive(Debug)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
    open: Arc<OpenConnections>,
    notifier: ChangeNotifier,
}

/// Observes the phase.
#[derive(Clone, Debug)]
pub struct DrainToken {
    phase: watch::Receiver<Phase>,
    open: Arc<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    count: AtomicUsize,
    changed: Notify,
}

/// Counts one open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Arc<OpenConnections>);

/// A trigger and a token for it. `notifier` wakes open connections for a forced drain as for any other change, so that each
/// waits for one event only.
#[must_use]
pub fn drain(notifier: ChangeNotifier) -> (DrainTrigger, DrainToken) {
    let (sender, receiver) = watch::channel(Phase::Running);
    let open = Arc::<OpenConnections>::default();
    (DrainTrigger { phase: sender, open: Arc::clone(&open), notifier }, DrainToken { phase: receiver, open })
}

impl DrainTrigger {
    /// Moves to `phase`, never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let forward = phase > *current;
            if forward {
                *current = phase;
            }
            forward
        });
        self.notifier.notify();
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The number of open connections.
    #[must_use]
    pub fn live(&self) -> usize {
        self.open.count()
    }

    /// Waits until no connection is open.
    pub async fn empty(&self) {
        self.open.empty().await;
    }
}

impl OpenConnections {
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    async fn empty(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count() == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl DrainToken {
    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until `phase` is reached; returns at once if it has passed.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.clone();
        // An error means that the trigger was dropped: the process is ending.
        let _gone = receiver.wait_for(|current| *current >= phase).await;
    }

    pub(crate) async fn empty(&self) {
        self.open.empty().await;
    }

    pub(crate) fn enter(&self) -> ConnectionGuard {
        self.open.count.fetch_add(1, Ordering::AcqRel);
        ConnectionGuard(Arc::clone(&self.open))
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::change_channel;

    #[tokio::test]
    async fn phases_never_go_back() {
        let (trigger, token) = drain(change_channel().0);
        trigger.advance(Phase::InboundClosed);
        trigger.advance(Phase::Unready);
        assert_eq!(token.phase(), Phase::InboundClosed);
        token.reached(Phase::Unready).await;
    }

    #[tokio::test]
    async fn empty_waits_for_the_last_connection() {
        let (trigger, token) = drain(change_channel().0);
        trigger.empty().await;
        let (one, two) = (token.enter(), token.enter());
        let waiting = tokio::spawn(async move { trigger.empty().await });
        drop(one);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(two);
        waiting.await.unwrap();
    }
}
