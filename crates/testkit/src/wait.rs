//! Polls a condition until a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// The deadline of an expected event: far longer than it takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two probes.
const PAUSE: Duration = Duration::from_millis(10);

/// What the probe finds, as soon as it finds something within [`PATIENCE`].
///
/// # Panics
/// If it finds nothing in time.
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, probe).unwrap_or_else(|| panic!("not within {PATIENCE:?}: {what}"))
}

/// What the probe finds, or `None` if it finds nothing in time.
pub fn eventually_within<T>(patience: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = probe();
        if found.is_some() || start.elapsed() >= patience {
            return found;
        }
        thread::sleep(PAUSE);
    }
}

/// Waits within [`PATIENCE`] until the probe succeeds.
///
/// # Panics
/// If it does not in time.
pub async fn eventually_async(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !probe().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
