//! Telling live connections that policy or trust has changed, so that each is decided again.
//!
//! Every connection judges itself: it holds what was frozen when it was admitted, and nobody else has to know it. It looks
//! at the number of changes *before* it takes its snapshot, and waits for a different one afterwards, so a change between
//! the two is not missed.

use std::sync::Arc;

use tokio::sync::watch;

/// The end that announces. Whoever swaps a policy or credentials calls it after the swap.
#[derive(Clone, Debug)]
pub struct Announcer(Arc<watch::Sender<u64>>);

/// The end that waits.
#[derive(Clone, Debug)]
pub struct Changes(watch::Receiver<u64>);

/// Both ends.
#[must_use]
pub fn changes() -> (Announcer, Changes) {
    let (sender, receiver) = watch::channel(0);
    (Announcer(Arc::new(sender)), Changes(receiver))
}

impl Announcer {
    /// Something that decides about connections is different from now on.
    pub fn announce(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Changes {
    /// A connection's own view. Changes from here on will be told by [`Changes::next`].
    pub(crate) fn view(&self) -> Self {
        let mut own = self.clone();
        own.0.mark_unchanged();
        own
    }

    /// Waits for a change since the last call.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody is left who could change anything.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_between_the_view_and_the_wait_is_told() {
        let (announcer, changes) = changes();
        announcer.announce();
        let mut own = changes.view();
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), own.next()).await;
        assert!(early.is_err(), "what was before is not a change");
        announcer.announce();
        own.next().await;
        drop(announcer);
        let never = tokio::time::timeout(std::time::Duration::from_millis(20), own.next()).await;
        assert!(never.is_err(), "the end of all changes is none");
    }
}
