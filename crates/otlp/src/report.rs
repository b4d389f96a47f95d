//! What the log says of the export: when it begins to fail, why, and when it works again. Not each request.

use std::time::Duration;

use tokio::time::Instant;

/// While it lasts, a failure is told again after this.
const AGAIN: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(crate) struct Report {
    failing_since: Option<Instant>,
    told: Option<Instant>,
}

impl Report {
    /// No answer, or one that says later.
    pub(crate) fn failed(&mut self, endpoint: &str, problem: &str, now: Instant) {
        self.failing_since.get_or_insert(now);
        if self.is_due(now) {
            tracing::warn!(
                endpoint,
                problem,
                "access log lines do not reach the collector; they wait, and are dropped when the queue is full"
            );
        }
    }

    /// A batch was refused for good, in whole or in part.
    pub(crate) fn refused(&mut self, endpoint: &str, lines: u64, problem: &str, now: Instant) {
        if self.is_due(now) {
            tracing::error!(
                endpoint,
                lines,
                problem,
                "the collector refuses access log lines; correct telemetry.otlp or OTEL_EXPORTER_OTLP_*"
            );
        }
    }

    /// A batch was taken.
    pub(crate) fn worked(&mut self, endpoint: &str, now: Instant) {
        if let Some(since) = self.failing_since.take() {
            self.told = None;
            let after = now.saturating_duration_since(since);
            tracing::info!(endpoint, ?after, "access log lines reach the collector again");
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
        if due {
            self.told = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_first_and_every_five_minutes() {
        let (mut report, start) = (Report::default(), Instant::now());
        let told = |report: &mut Report, seconds| report.is_due(start + Duration::from_secs(seconds));
        let seen: Vec<u64> = (0..900).filter(|seconds| told(&mut report, *seconds)).collect();
        assert_eq!(seen, [0, 300, 600]);
        report.failing_since = Some(start);
        report.worked("x", start);
        assert!(told(&mut report, 901), "a new failure is told at once");
    }
}
