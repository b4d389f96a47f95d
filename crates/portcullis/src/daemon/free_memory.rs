//! Returns memory to the system: what the start has needed, and what a burst of connections has.
//!
//! Each connection takes some KiB of the heap. glibc returns memory only from the end of a heap by itself, where a few blocks in use
//! keep all that is free below them.

use std::sync::Arc;
use std::time::Duration;

use portcullis_proxy::buffers::Buffers;
use portcullis_proxy::drain::DrainTrigger;
use tokio::time::{Instant, sleep};

/// Releasing takes the locks of the allocator's heaps for some milliseconds, so it is done no more often than this.
const INTERVAL: Duration = Duration::from_secs(3);
/// After which nothing of the start is left to be done.
const STARTED: Duration = Duration::from_secs(1);
/// Connections that have ended since the last time: about 1.5 MB.
const ENDED: usize = 256;
/// Bytes of stalled connections that have moved on since the last time.
const MOVED_ON: usize = 4_000_000;

/// What takes memory of the heap.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    connections: usize,
    held: usize,
}

/// The highest of each since memory was released.
#[derive(Debug, Default)]
struct Peak(Load);

impl Peak {
    /// Whether the load is so far below the peak that there is memory to be released. The next peak begins with it then.
    const fn has_passed(&mut self, now: Load) -> bool {
        let Self(peak) = self;
        if peak.connections < now.connections {
            peak.connections = now.connections;
        }
        if peak.held < now.held {
            peak.held = now.held;
        }
        let passed = peak.connections - now.connections > ENDED || peak.held - now.held > MOVED_ON;
        if passed {
            *peak = now;
        }
        passed
    }
}

/// Never returns. To be run on a thread that serves no connection, since the call blocks.
pub(super) async fn watch(drain: Arc<DrainTrigger>, buffers: Arc<Buffers>) {
    sleep(STARTED).await;
    release_start();
    let mut peak = Peak::default();
    loop {
        sleep(INTERVAL).await;
        if peak.has_passed(Load { connections: drain.live(), held: buffers.used() }) {
            let began = Instant::now();
            let released = portcullis_sys::release_free_memory();
            tracing::debug!(released, took = ?began.elapsed(), "returned free memory to the system");
        }
    }
}

/// The heap has parsed configuration and policies, and half of what is resident of the binary has run for the last time.
fn release_start() {
    portcullis_sys::release_free_memory();
    match portcullis_sys::release_binary_pages() {
        Ok(bytes) => tracing::debug!(bytes, "unmapped the pages of the binary until they are used again"),
        Err(error) => tracing::debug!(%error, "cannot unmap the pages of the binary: they stay resident"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(connections: usize) -> Load {
        Load { connections, held: 0 }
    }

    #[test]
    fn memory_is_released_after_a_burst_and_not_before() {
        let mut peak = Peak::default();
        assert!(!peak.has_passed(at(0)));
        assert!(!peak.has_passed(at(10_000)));
        assert!(!peak.has_passed(at(10_000 - ENDED)));
        assert!(peak.has_passed(at(10_000 - ENDED - 1)));
        assert!(!peak.has_passed(at(10_000 - 2 * ENDED - 1)), "the next peak begins after the release");
        assert!(peak.has_passed(at(0)));
        assert!(!peak.has_passed(at(0)));
    }

    #[test]
    fn connections_that_end_slowly_add_up() {
        let mut peak = Peak::default();
        let released = (0..=1000).rev().filter(|connections| peak.has_passed(at(*connections))).count();
        assert_eq!(released, 1000 / (ENDED + 1));
    }

    #[test]
    fn stalled_bytes_that_move_on_count_too() {
        let mut peak = Peak::default();
        assert!(!peak.has_passed(Load { connections: 100, held: MOVED_ON }));
        assert!(!peak.has_passed(Load { connections: 100, held: MOVED_ON + 1 }));
        assert!(!peak.has_passed(Load { connections: 100, held: 1 }));
        assert!(peak.has_passed(Load { connections: 100, held: 0 }));
    }
}
