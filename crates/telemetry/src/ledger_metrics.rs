//! What the ledger says, as metrics.

use portcullis_ledger::Ledger;
use prometheus::{GaugeVec, IntGauge, Opts, Registry};

use crate::family::CounterFamily;
use crate::ports::KnownPorts;

/// Copied from the ledger when they are scraped.
pub(crate) struct LedgerMetrics {
    readiness: GaugeVec,
    observations: IntGauge,
    evicted: CounterFamily<0>,
    write_failures: CounterFamily<0>,
}

impl LedgerMetrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            readiness: GaugeVec::new(
                Opts::new(
                    "portcullis_readiness",
                    "1 if no connection without mTLS was let through at this port in the last 7 days, otherwise 0.",
                ),
                &["port"],
            )?,
            observations: IntGauge::with_opts(Opts::new(
                "portcullis_ledger_pairs",
                "Observations that the ledger has.",
            ))?,
            evicted: CounterFamily::new(
                "portcullis_ledger_evicted_total",
                "Observations that were given up to stay below ledger.maxPairs.",
                &[],
            )?,
            write_failures: CounterFamily::new(
                "portcullis_ledger_write_failures_total",
                "Attempts to write the ledger that failed.",
                &[],
            )?,
        };
        registry.register(Box::new(metrics.readiness.clone()))?;
        registry.register(Box::new(metrics.observations.clone()))?;
        registry.register(Box::new(metrics.evicted.clone()))?;
        registry.register(Box::new(metrics.write_failures.clone()))?;
        Ok(metrics)
    }

    /// Sets them to what holds now.
    pub(crate) fn refresh(&self, ledger: &Ledger, ports: &KnownPorts) {
        self.readiness.reset();
        for (port, is_ready) in ledger.readiness() {
            // Clients choose ports that nothing listens on.
            if ports.is_known(port) {
                self.readiness.with_label_values(&[&port.to_string()]).set(f64::from(u8::from(is_ready)));
            }
        }
        self.observations.set(i64::try_from(ledger.observation_count()).unwrap_or(i64::MAX));
        self.evicted.with(&[]).raise_to(ledger.evicted());
        self.write_failures.with(&[]).raise_to(ledger.write_failures());
    }
}
