//! Metrics of a source of certificates that has to be asked.

use std::collections::BTreeMap;

use prometheus::IntGauge;

use crate::CounterFamily;

/// The metrics `portcullis_identity_*`. The source counts the totals; each scrape copies them.
#[derive(Clone)]
pub struct IdentityMetrics {
    pub(crate) renewals: CounterFamily<2>,
    pub(crate) consecutive: IntGauge,
    pub(crate) polls: CounterFamily<2>,
}

impl IdentityMetrics {
    /// Certificates that were put in force, attempts that brought none by reason, and how many of those in a row.
    pub fn renewals(&self, renewed: u64, failures: &BTreeMap<&'static str, u64>, consecutive: u32) {
        copy_totals(&self.renewals, renewed, failures);
        self.consecutive.set(consecutive.into());
    }

    /// Answers with bundles, and attempts that brought none by reason.
    pub fn bundle_polls(&self, answered: u64, failures: &BTreeMap<&'static str, u64>) {
        copy_totals(&self.polls, answered, failures);
    }
}

fn copy_totals(family: &CounterFamily<2>, ok: u64, failures: &BTreeMap<&'static str, u64>) {
    family.with(&["ok", "-"]).raise_to(ok);
    for (reason, count) in failures {
        family.with(&["error", reason]).raise_to(*count);
    }
}
