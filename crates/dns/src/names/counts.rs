//! How lookups ended, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::LookupError;
use crate::resolver::Answer;

/// Lookups of the set, by result.
#[derive(Default)]
pub(super) struct Counts {
    ok: AtomicU64,
    no_address: AtomicU64,
    incomplete: AtomicU64,
    error: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, answer: &Result<Answer, LookupError>) {
        let count = match answer {
            Ok(Answer { incomplete: Some(_), .. }) => &self.incomplete,
            Ok(answer) if answer.addresses.is_empty() => &self.no_address,
            Ok(_) => &self.ok,
            Err(_) => &self.error,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> [(&'static str, u64); 4] {
        let Self { ok, no_address, incomplete, error } = self;
        [("ok", ok), ("no_address", no_address), ("incomplete", incomplete), ("error", error)]
            .map(|(name, count)| (name, count.load(Ordering::Relaxed)))
    }
}
