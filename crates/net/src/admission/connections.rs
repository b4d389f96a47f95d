//! The limit on all connections of a process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

use super::EvictingSlots;

/// How often a connection over the limit yields to other tasks, so that the evicted one can release its permit.
const EVICTION_TURNS: usize = 3;

/// A limit on connections. One that is undecided (not authorised yet) also holds an evictable slot; at the limit it is closed
/// for a newcomer.
#[derive(Debug)]
pub struct ConnectionLimit {
    permits: Arc<Semaphore>,
    undecided: Arc<EvictingSlots>,
}

/// One connection's share of the limit.
#[derive(Debug)]
pub struct ConnectionPermit(#[expect(dead_code, reason = "released when it is dropped")] OwnedSemaphorePermit);

impl ConnectionLimit {
    /// At most `connections` in all, at most `undecided` of which are not authorised yet.
    #[must_use]
    pub fn new(connections: usize, undecided: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(connections)), undecided: EvictingSlots::new(undecided) }
    }

    /// The slots of undecided connections.
    #[must_use]
    pub const fn undecided(&self) -> &Arc<EvictingSlots> {
        &self.undecided
    }

    /// A permit for one more connection. At the limit the oldest connection without progress is evicted for it. `None` if
    /// there is none: then the new connection is to be refused at once, since a client in the backlog would get no answer.
    pub async fn acquire(&self) -> Option<ConnectionPermit> {
        if let Some(permit) = self.try_acquire() {
            return Some(permit);
        }
        self.undecided.evict_without_progress();
        for _ in 0..EVICTION_TURNS {
            yield_now().await;
            if let Some(permit) = self.try_acquire() {
                return Some(permit);
            }
        }
        None
    }

    fn try_acquire(&self) -> Option<ConnectionPermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok().map(ConnectionPermit)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn at_the_limit_an_undecided_connection_makes_room() {
        let limit = ConnectionLimit::new(1, 4);
        let permit = limit.acquire().await.unwrap();
        let slot = limit.undecided().acquire(CLIENT);
        let connection = tokio::spawn(async move {
            slot.evicted().await;
            drop(permit);
        });
        assert!(limit.acquire().await.is_some());
        connection.await.unwrap();
    }

    #[tokio::test]
    async fn at_the_limit_a_decided_connection_stays_and_the_newcomer_gets_no_permit() {
        let limit = ConnectionLimit::new(1, 4);
        let permit = limit.acquire().await.unwrap();
        let slot = limit.undecided().acquire(CLIENT);
        slot.made_progress();
        assert!(limit.acquire().await.is_none());
        drop((permit, slot));
        assert!(limit.acquire().await.is_some());
    }
}
