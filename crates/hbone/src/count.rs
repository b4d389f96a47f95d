//! How many streams a tunnel has that this side opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of streams that are open.
#[derive(Clone, Default)]
pub(crate) struct Streams(Arc<AtomicUsize>);

/// One of them, counted until it is dropped.
pub(crate) struct StreamCount(Arc<AtomicUsize>);

impl Streams {
    /// One more, unless there are `limit`.
    pub(crate) fn enter(&self, limit: usize) -> Option<StreamCount> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= limit {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(StreamCount(Arc::clone(&self.0)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
