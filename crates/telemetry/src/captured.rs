//! When connections that the kernel redirected arrived last: the proof that redirect rules are in force which needs no privilege.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::connection::Direction;

/// The last redirected connection of each direction, in Unix time; 0 before the first.
#[derive(Debug, Default)]
pub struct CapturedAt([AtomicI64; 2]);

impl CapturedAt {
    /// One arrived.
    pub(crate) fn set(&self, direction: Direction, now_unix: i64) {
        if let Some(at) = self.0.get(direction as usize) {
            at.store(now_unix, Ordering::Relaxed);
        }
    }

    /// When one arrived last, in Unix time; `None` if none did since the start.
    #[must_use]
    pub fn get(&self, direction: Direction) -> Option<i64> {
        self.0.get(direction as usize).map(|at| at.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_own() {
        let captured = CapturedAt::default();
        captured.set(Direction::Outbound, 7);
        assert_eq!((captured.get(Direction::Inbound), captured.get(Direction::Outbound)), (None, Some(7)));
    }
}
