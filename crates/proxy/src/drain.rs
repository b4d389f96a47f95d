//! Ending in order: unready, no new inbound connections, wait for those that live, and at last by force.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, watch};

use crate::changes::Announcer;

/// How far the end has come. Phases only go forward.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// Serving.
    Running,
    /// Unready, but still accepting, so that whoever routes to us can notice.
    Unready,
    /// No new inbound connections; outbound goes on, since the app may need it to finish.
    InboundClosed,
    /// Every connection is reset.
    Forced,
}

/// The end that moves the phase forward.
#[derive(Debug)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
    live: Arc<Live>,
    announcer: Announcer,
}

/// The end that waits for it.
#[derive(Clone, Debug)]
pub struct DrainToken {
    phase: watch::Receiver<Phase>,
    live: Arc<Live>,
}

#[derive(Debug, Default)]
struct Live {
    count: AtomicUsize,
    changed: Notify,
}

/// Counts one connection until it is dropped.
#[derive(Debug)]
pub(crate) struct LiveGuard(Arc<Live>);

/// One of the places of a listener that has a limit, free again when it is dropped.
#[derive(Debug, Default)]
pub(crate) struct ListenerPlace(Option<Arc<Semaphore>>);

impl ListenerPlace {
    /// `None` if there is none left. Without a limit there always is.
    pub(crate) fn take(places: Option<&Arc<Semaphore>>) -> Option<Self> {
        if let Some(places) = places {
            // Given back by the guard: kept as a permit it would take twice the room, as long as the connection lives.
            places.try_acquire().ok()?.forget();
        }
        Some(Self(places.cloned()))
    }

    pub(crate) const fn is_limited(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for ListenerPlace {
    fn drop(&mut self) {
        if let Some(places) = &self.0 {
            places.add_permits(1);
        }
    }
}

/// A trigger and a token for it. Live connections learn of the end as they learn of any change, from `announcer`: they wait
/// for one thing only.
#[must_use]
pub fn drain(announcer: Announcer) -> (DrainTrigger, DrainToken) {
    let (sender, receiver) = watch::channel(Phase::Running);
    let live = Arc::<Live>::default();
    (DrainTrigger { phase: sender, live: Arc::clone(&live), announcer }, DrainToken { phase: receiver, live })
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
        self.announcer.announce();
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Connections that live now.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.count()
    }

    /// Waits until no connection lives.
    pub async fn empty(&self) {
        self.live.empty().await;
    }
}

impl Live {
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

    /// Waits until `phase` is reached; at once if it is behind us.
    pub async fn reached(&self, phase: Phase) {
        let mut receiver = self.phase.clone();
        // An error means that the trigger is gone, and with it whoever could want us to go on.
        let _gone = receiver.wait_for(|current| *current >= phase).await;
    }

    pub(crate) async fn empty(&self) {
        self.live.empty().await;
    }

    pub(crate) fn enter(&self) -> LiveGuard {
        self.live.count.fetch_add(1, Ordering::AcqRel);
        LiveGuard(Arc::clone(&self.live))
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::changes;

    #[tokio::test]
    async fn phases_never_go_back() {
        let (trigger, token) = drain(changes().0);
        trigger.advance(Phase::InboundClosed);
        trigger.advance(Phase::Unready);
        assert_eq!(token.phase(), Phase::InboundClosed);
        token.reached(Phase::Unready).await;
    }

    #[test]
    fn a_listener_with_a_limit_gets_its_place_back() {
        let places = Arc::new(Semaphore::new(1));
        for _ in 0..3 {
            let one = ListenerPlace::take(Some(&places));
            assert!(one.is_some() && ListenerPlace::take(Some(&places)).is_none());
        }
        assert_eq!(places.available_permits(), 1);
        assert!(ListenerPlace::take(None).is_some());
    }

    #[tokio::test]
    async fn empty_waits_for_the_last_connection() {
        let (trigger, token) = drain(changes().0);
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
