//! When an endpoint whose connections fail is left out for a while.

use std::time::Duration;

use portcullis_policy::directory::OutlierDetection;
use tokio::time::Instant;

use super::pick::Candidate;

/// The longest ejection, unless the first one is configured to be longer.
const MAX_EJECTION: Duration = Duration::from_secs(300);

/// When an endpoint is ejected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OutlierSettings {
    /// After how many failures in a row; 0: never.
    pub(crate) consecutive_failures: u32,
    /// How long the first time; each further time as much longer.
    pub(crate) base_ejection: Duration,
    /// How many endpoints may be ejected at once. One always may, unless this is 0.
    pub(crate) max_ejection_percent: u8,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self { consecutive_failures: 5, base_ejection: Duration::from_secs(30), max_ejection_percent: 50 }
    }
}

impl From<OutlierDetection> for OutlierSettings {
    fn from(configured: OutlierDetection) -> Self {
        Self {
            consecutive_failures: configured.consecutive_failures.map_or(0, u32::from),
            base_ejection: configured.base_ejection_time,
            max_ejection_percent: configured.max_ejection_percent,
        }
    }
}

impl OutlierSettings {
    /// How long the ejection with this number, from 1, lasts.
    fn ejection(&self, number: u32) -> Duration {
        self.base_ejection.saturating_mul(number).min(MAX_EJECTION.max(self.base_ejection))
    }

    /// Whether one more of `all` may be ejected.
    fn allows(&self, ejected: usize, all: usize) -> bool {
        // The last one that is left never is.
        let is_last = ejected.saturating_add(1) >= all;
        let percent = usize::from(self.max_ejection_percent);
        let is_within = if ejected == 0 {
            percent > 0
        } else {
            ejected.saturating_add(1).saturating_mul(100) <= percent.saturating_mul(all)
        };
        !is_last && is_within
    }
}

/// Counts a failed connection to one of the candidates. Returns how long it is ejected, if it is now.
pub(crate) fn failed(
    candidates: &[Candidate],
    index: usize,
    settings: &OutlierSettings,
    now: Instant,
) -> Option<Duration> {
    let state = &candidates.get(index)?.state;
    let failures = state.count_failure();
    if settings.consecutive_failures == 0 || failures < settings.consecutive_failures || state.is_ejected(now) {
        return None;
    }
    let ejected = candidates.iter().filter(|candidate| candidate.state.is_ejected(now)).count();
    settings.allows(ejected, candidates.len()).then(|| state.eject(now, |number| settings.ejection(number)))
}
