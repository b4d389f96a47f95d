//! Answers that take work, made at most once a second however many ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old an answer may be. A full ledger or a large folder takes tens of milliseconds, on the thread that also answers probes.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer, for all who ask.
pub(super) struct Fresh<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Fresh<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Fresh<T> {
    /// The last one, or a new one if that is too old.
    pub(super) fn get_or_make(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, answer)) = last.as_ref().filter(|(made, _)| made.elapsed() < FRESH) {
            return Arc::clone(answer);
        }
        let answer = Arc::new(make());
        *last = Some((Instant::now(), Arc::clone(&answer)));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_once_while_it_is_fresh() {
        let (fresh, mut made) = (Fresh::default(), 0);
        for _ in 0..3 {
            fresh.get_or_make(|| made += 1);
        }
        assert_eq!(made, 1);
    }
}
