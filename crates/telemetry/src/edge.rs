//! The counters of one edge of the service graph: Istio's TCP metrics for one pair of workloads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::proto::{Counter as ProtoCounter, LabelPair, Metric};

use crate::names::{EdgeKey, LABELS, LocalWorkload, values};
use crate::outcome::ResponseFlag;

#[derive(Clone, Copy)]
pub(crate) enum EdgeMetric {
    Opened,
    Closed,
    Failed,
    Received,
    Sent,
}

pub(crate) const KINDS: [(EdgeMetric, &str, &str); 5] = [
    (EdgeMetric::Opened, "istio_tcp_connections_opened_total", "Connections that reached the other side."),
    (EdgeMetric::Closed, "istio_tcp_connections_closed_total", "Opened connections that have ended."),
    (EdgeMetric::Failed, "istio_tcp_connections_failed_total", "Connections that were refused or could not be made."),
    (EdgeMetric::Received, "istio_tcp_received_bytes_total", "Bytes from client to server, for both reporters."),
    (EdgeMetric::Sent, "istio_tcp_sent_bytes_total", "Bytes from server to client, for both reporters."),
];

/// The counters of one edge.
pub(crate) struct Edge {
    labels: Vec<LabelPair>,
    opened: AtomicU64,
    closed: [AtomicU64; ResponseFlag::ALL.len()],
    failed: [AtomicU64; ResponseFlag::ALL.len()],
    received: AtomicU64,
    sent: AtomicU64,
    used: Mutex<Instant>,
}

impl Edge {
    pub(crate) fn new(own: &LocalWorkload, key: &EdgeKey) -> Self {
        let labels = LABELS.iter().zip(values(own, key)).map(|(name, value)| pair(name, value)).collect();
        Self {
            labels,
            opened: AtomicU64::new(0),
            closed: Default::default(),
            failed: Default::default(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            used: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self, flag: ResponseFlag) {
        add(&self.closed, flag);
        *lock(&self.used) = Instant::now();
    }

    pub(crate) fn failed(&self, flag: ResponseFlag) {
        add(&self.failed, flag);
        *lock(&self.used) = Instant::now();
    }

    /// Bytes that have passed since the last call.
    pub(crate) fn moved(&self, received: u64, sent: u64) {
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }

    pub(crate) fn idle_since(&self) -> Instant {
        *lock(&self.used)
    }

    pub(crate) fn write(&self, kind: EdgeMetric, metrics: &mut Vec<Metric>) {
        let mut metric = |flag: ResponseFlag, counter: &AtomicU64| {
            let mut labels = self.labels.clone();
            labels.push(pair("response_flags", flag.label().to_owned()));
            let mut value = ProtoCounter::default();
            // A float counts exactly up to 2^53, some 9 PB of traffic.
            #[allow(clippy::cast_precision_loss)]
            value.set_value(counter.load(Ordering::Relaxed) as f64);
            let mut metric = Metric::default();
            metric.set_label(labels);
            metric.set_counter(value);
            metrics.push(metric);
        };
        let opened = self.opened.load(Ordering::Relaxed) > 0;
        match kind {
            EdgeMetric::Opened if opened => metric(ResponseFlag::None, &self.opened),
            EdgeMetric::Received if opened => metric(ResponseFlag::None, &self.received),
            EdgeMetric::Sent if opened => metric(ResponseFlag::None, &self.sent),
            EdgeMetric::Closed | EdgeMetric::Failed => {
                let counters = if matches!(kind, EdgeMetric::Closed) { &self.closed } else { &self.failed };
                for (flag, counter) in ResponseFlag::ALL.into_iter().zip(counters) {
                    if counter.load(Ordering::Relaxed) > 0 {
                        metric(flag, counter);
                    }
                }
            }
            EdgeMetric::Opened | EdgeMetric::Received | EdgeMetric::Sent => {}
        }
    }
}

fn add(counters: &[AtomicU64; ResponseFlag::ALL.len()], flag: ResponseFlag) {
    if let Some(counter) = counters.get(flag as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn pair(name: &str, value: String) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value);
    pair
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only whole values are stored, so a panic leaves a whole value behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
