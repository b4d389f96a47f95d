//! How many connections each authenticated peer has, so that one that runs wild cannot take the places of all others.
//!
//! A live count: a place is free again when its guard is dropped, and a peer without a connection takes no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_identity::SpiffeId;

use crate::drain::ListenerPlace;

/// The places of every peer, shared by all workers.
pub(crate) struct Peers {
    /// For each of them; `None` where only the other limits hold.
    limit: Option<usize>,
    held: Mutex<HashMap<SpiffeId, usize>>,
}

/// One connection's places. A pointer, since it is held as long as the connection; empty where nothing has a limit.
#[derive(Default)]
pub(crate) struct Place(Option<Box<Held>>);

#[derive(Default)]
struct Held {
    peer: Option<(Arc<Peers>, SpiffeId)>,
    listener: ListenerPlace,
}

impl Place {
    /// With the place on its listener.
    pub(crate) fn with(mut self, listener: ListenerPlace) -> Self {
        if listener.is_limited() {
            self.0.get_or_insert_default().listener = listener;
        }
        self
    }
}

impl Peers {
    pub(crate) fn new(limit: Option<usize>) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::default() })
    }

    /// A place for one more connection of this peer, unless it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, peer: &SpiffeId) -> Option<Place> {
        let Some(limit) = self.limit else { return Some(Place(None)) };
        let mut held = self.lock();
        let count = held.entry(peer.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Place(Some(Box::new(Held { peer: Some((Arc::clone(self), peer.clone())), ..Held::default() }))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SpiffeId, usize>> {
        // Nothing in here panics halfway.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((peers, peer)) = self.0.take().and_then(|held| held.peer) else { return };
        let mut held = peers.lock();
        if let Some(count) = held.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                held.remove(&peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
    }

    #[test]
    fn one_peer_cannot_take_the_places_of_another_and_nothing_stays_behind() {
        let peers = Peers::new(Some(2));
        let (one, _two) = (peers.enter(&peer("a")).unwrap(), peers.enter(&peer("a")).unwrap());
        for _ in 0..3 {
            assert!(peers.enter(&peer("a")).is_none());
        }
        let other = peers.enter(&peer("b")).unwrap();
        drop(one);
        let again = peers.enter(&peer("a")).unwrap();
        assert!(peers.enter(&peer("a")).is_none());
        drop((other, again, _two));
        assert!(peers.lock().is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let peers = Peers::new(None);
        let _places: Vec<_> = (0..100).map(|_| peers.enter(&peer("a")).unwrap()).collect();
        assert!(peers.lock().is_empty());
    }
}
