//! Metrics of state that is known elsewhere, and copied when it is scraped.

use prometheus::{Gauge, IntGauge};

use crate::family::CounterFamily;

/// What connections hold because their receivers do not read.
#[derive(Clone)]
pub struct BufferMetrics {
    pub(crate) held: IntGauge,
    pub(crate) limited: IntGauge,
}

impl BufferMetrics {
    /// What is known at the moment of the scrape: bytes held, and connections that the budget limits to small pieces.
    pub fn set(&self, held: usize, limited: usize) {
        for (gauge, value) in [(&self.held, held), (&self.limited, limited)] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

/// How a set of files fares.
#[derive(Clone)]
pub struct ReloadMetrics {
    pub(crate) results: CounterFamily<1>,
    pub(crate) generation: IntGauge,
    pub(crate) last: Gauge,
    pub(crate) stale: IntGauge,
}

impl ReloadMetrics {
    /// What is known at the moment of the scrape: sets put in force, problems met, when the last one was put in force
    /// (seconds since 1970), and whether the files as they are now are not what is in force.
    pub fn set(&self, generation: u64, problems: u64, last: f64, stale: bool) {
        self.results.with(&["ok"]).raise_to(generation);
        self.results.with(&["error"]).raise_to(problems);
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.last.set(last);
        self.stale.set(stale.into());
    }
}
