//! The time limits of a copy, and the counts of its bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long one direction may stay without a byte after the other has ended.
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Time limits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CopyLimits {
    /// Longest silence in both directions; `None` for no limit.
    pub idle: Option<Duration>,
    /// Longest silence once one direction has ended.
    pub half_close: Duration,
}

impl Default for CopyLimits {
    fn default() -> Self {
        Self { idle: None, half_close: HALF_CLOSE_TIMEOUT }
    }
}

/// Bytes forwarded so far, in each direction. They are counted when the receiving side has taken them, and can be read
/// at any time.
#[derive(Clone, Debug, Default)]
pub struct ByteCounts {
    /// From downstream to upstream.
    pub from_downstream: Arc<AtomicU64>,
    /// From upstream to downstream.
    pub from_upstream: Arc<AtomicU64>,
}

impl ByteCounts {
    /// Both counts, downstream's first.
    #[must_use]
    pub fn get(&self) -> (u64, u64) {
        (self.from_downstream.load(Ordering::Relaxed), self.from_upstream.load(Ordering::Relaxed))
    }
}
