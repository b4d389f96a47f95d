//! Signs of life of the workers: whether each of their runtimes still runs its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often a worker beats.
pub(crate) const BEAT: Duration = Duration::from_secs(2);
/// A worker that has not beaten for this long does not run its tasks.
const LATE: Duration = Duration::from_secs(6);

/// One counter for each worker, which its own runtime moves on.
#[derive(Clone, Debug)]
pub struct Beats(Arc<[AtomicU64]>);

impl Beats {
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn beat(&self, worker: usize) {
        if let Some(counter) = self.0.get(worker) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Begins to watch the workers.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let now = Instant::now();
        let last = self.0.iter().map(|counter| (counter.load(Ordering::Relaxed), now)).collect();
        Watch { beats: self.clone(), last }
    }
}

/// Remembers when each worker was last seen to beat.
#[derive(Debug)]
pub struct Watch {
    beats: Beats,
    last: Vec<(u64, Instant)>,
}

impl Watch {
    /// The workers, by number, that have not run their tasks for 6 s. To be asked every few seconds: a beat counts from when it is
    /// seen.
    pub fn late(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let mut late = Vec::new();
        for (worker, (counter, (count, seen))) in self.beats.0.iter().zip(&mut self.last).enumerate() {
            let current = counter.load(Ordering::Relaxed);
            if current != *count {
                (*count, *seen) = (current, now);
            } else if now.duration_since(*seen) > LATE {
                late.push(worker);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_stops_is_late_and_one_that_goes_on_is_not() {
        let beats = Beats::new(2);
        let mut watch = beats.watch();
        for _ in 0..4 {
            assert_eq!(watch.late(), Vec::<usize>::new());
            advance(BEAT).await;
            beats.beat(0);
        }
        assert_eq!(watch.late(), [1]);
        beats.beat(1);
        assert_eq!(watch.late(), Vec::<usize>::new());
    }
}
