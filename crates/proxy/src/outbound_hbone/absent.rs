//! Endpoints of the directory that are said to take tunnels, and do not.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For so long an endpoint without tunnels is reached by mTLS on TCP at once.
const REMEMBERED: Duration = Duration::from_secs(60);
/// As many are remembered. Further ones are dialled for a tunnel each time.
const MAX: usize = 4096;

/// Where tunnels were refused, and until when that counts.
#[derive(Debug, Default)]
pub(crate) struct WithoutHbone(Mutex<HashMap<SocketAddr, Instant>>);

impl WithoutHbone {
    /// Whether a tunnel to this address is worth a dial.
    pub(crate) fn may_try(&self, address: SocketAddr, now: Instant) -> bool {
        self.with(|known| known.get(&address).is_none_or(|until| *until <= now))
    }

    /// Nothing took tunnels there. Whether this is news.
    pub(crate) fn note(&self, address: SocketAddr, now: Instant) -> bool {
        self.with(|known| {
            if known.len() >= MAX {
                known.retain(|_, until| *until > now);
            }
            if known.len() >= MAX {
                return true;
            }
            known.insert(address, now + REMEMBERED).is_none_or(|until| until <= now)
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut HashMap<SocketAddr, Instant>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_not_tried_for_a_minute_and_is_said_once() {
        let (known, address, began) = (WithoutHbone::default(), "10.0.0.7:15008".parse().unwrap(), Instant::now());
        assert!(known.may_try(address, began));
        assert!(known.note(address, began) && !known.note(address, began));
        assert!(!known.may_try(address, began + REMEMBERED / 2));
        assert!(known.may_try("10.0.0.8:15008".parse().unwrap(), began));
        let later = began + REMEMBERED;
        assert!(known.may_try(address, later) && known.note(address, later));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_remembered_than_there_is_room_for() {
        let (known, began) = (WithoutHbone::default(), Instant::now());
        for port in 1..=u16::MAX {
            known.note(SocketAddr::from(([10, 0, 0, 7], port)), began);
        }
        known.with(|known| assert_eq!(known.len(), MAX));
        let (new, later) = (SocketAddr::from(([10, 0, 0, 8], 1)), began + REMEMBERED);
        known.note(new, later);
        assert!(!known.may_try(new, later));
    }
}
