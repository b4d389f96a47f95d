//! The queue between connections and the exporter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_telemetry::{AccessEvent, AccessSink, SinkTotals};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Lines that wait, as in OpenTelemetry's batch processors. At half a kilobyte each this is a megabyte at most.
const CAPACITY: usize = 2048;

/// What became of lines.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl Counts {
    pub(crate) fn drop_lines(&self, lines: usize) {
        add(&self.dropped, lines);
    }
}

pub(crate) fn add(counter: &AtomicU64, lines: usize) {
    counter.fetch_add(lines.try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
}

/// The end for connections.
#[derive(Debug)]
pub struct QueueSink {
    lines: Sender<AccessEvent>,
    counts: Arc<Counts>,
}

/// The end for the [`Exporter`](crate::Exporter).
#[derive(Debug)]
pub struct LogQueue {
    pub(crate) lines: Receiver<AccessEvent>,
    pub(crate) counts: Arc<Counts>,
}

/// A queue that is empty.
#[must_use]
pub fn queue() -> (QueueSink, LogQueue) {
    let (sender, lines) = channel(CAPACITY);
    let counts = Arc::<Counts>::default();
    (QueueSink { lines: sender, counts: Arc::clone(&counts) }, LogQueue { lines, counts })
}

impl AccessSink for QueueSink {
    fn accept(&self, event: AccessEvent) {
        if self.lines.try_send(event).is_err() {
            self.counts.drop_lines(1);
        }
    }

    fn totals(&self) -> SinkTotals {
        let Counts { sent, refused, dropped } = &*self.counts;
        let [sent, refused, dropped] = [sent, refused, dropped].map(|counter| counter.load(Ordering::Relaxed));
        SinkTotals { sent, refused, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::event;

    #[test]
    fn what_has_no_room_is_dropped_and_counted() {
        let (sink, mut queue) = queue();
        for _ in 0..CAPACITY + 7 {
            sink.accept(event());
        }
        assert_eq!(sink.totals(), SinkTotals { dropped: 7, ..SinkTotals::default() });
        assert!(queue.lines.try_recv().is_ok());
        sink.accept(event());
        assert_eq!(sink.totals().dropped, 7, "there is room again");
        drop(queue);
        sink.accept(event());
        assert_eq!(sink.totals().dropped, 8, "nobody takes lines any more");
    }
}
