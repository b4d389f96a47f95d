//! Announces to open connections that policy or trust has changed, so that each re-authorises itself.
//!
//! A connection re-authorises itself instead of being re-authorised from outside, because it holds what it was admitted with.
//! It marks the current version *before* it takes its snapshot and waits for another one afterwards, so a change between the
//! two is not missed.

use std::sync::Arc;

use tokio::sync::watch;

/// Announces changes. To be called after a policy or credentials have been swapped.
#[derive(Clone, Debug)]
pub struct ChangeNotifier(Arc<watch::Sender<u64>>);

/// Waits for changes.
#[derive(Clone, Debug)]
pub struct ChangeWatch(watch::Receiver<u64>);

/// A notifier and a watch of it.
#[must_use]
pub fn change_channel() -> (ChangeNotifier, ChangeWatch) {
    let (sender, receiver) = watch::channel(0);
    (ChangeNotifier(Arc::new(sender)), ChangeWatch(receiver))
}

impl ChangeNotifier {
    /// Makes every open connection re-authorise itself.
    pub fn notify(&self) {
        self.0.send_modify(|version| *version = version.wrapping_add(1));
    }
}

impl ChangeWatch {
    /// A watch of one connection: [`ChangeWatch::next`] reports changes from here on.
    pub(crate) fn subscribe(&self) -> Self {
        let mut own = self.clone();
        own.0.mark_unchanged();
        own
    }

    /// Whether there was a change that [`ChangeWatch::next`] has not reported yet.
    pub(crate) fn has_changed(&self) -> bool {
        self.0.has_changed().unwrap_or(false)
    }

    /// Waits for a change since the last call.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The notifier was dropped: there will be no change.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_the_snapshot_and_the_wait_is_reported() {
        let (notifier, changes) = change_channel();
        notifier.notify();
        let mut own = changes.subscribe();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), own.next()).await;
        assert!(early.is_err(), "earlier changes are not reported");
        notifier.notify();
        own.next().await;
        drop(notifier);
        let never = tokio::time::timeout(std::time::Duration::from_millis(20), own.next()).await;
        assert!(never.is_err(), "a dropped notifier is not a change");
    }
}
