//! The exporter's loop: gather a batch, send it, retry.

use std::time::Duration;

use hyper::body::Bytes;
use portcullis_telemetry::AccessEvent;
use portcullis_tls::Clock;
use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::answer::ExportResult;
use crate::client::Client;
use crate::encode::Encoder;
use crate::queue::{Counts, LogQueue, add};
use crate::report::Report;

/// Lines of one request at most, as in OpenTelemetry's batch processors: a quarter of a megabyte.
const BATCH: usize = 512;
/// After the first line of a batch, others are waited for, as there.
const GATHER: Duration = Duration::from_secs(1);
/// How often it is looked whether a batch is full: the queue has room for 40,000 lines a second between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The first pause after a failure; each one after it is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A collector that says "at once" is not asked in a tight loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A batch that was not taken for so long is dropped.
const GIVE_UP: Duration = Duration::from_secs(300);

/// When to be done; `None` while the process runs.
pub(crate) type Stop = watch::Receiver<Option<Instant>>;

pub(crate) struct Worker {
    pub(crate) client: Client,
    pub(crate) encoder: Encoder,
    pub(crate) endpoint: String,
    /// For one request.
    pub(crate) timeout: Duration,
    pub(crate) clock: Clock,
    pub(crate) queue: LogQueue,
    pub(crate) stop: Stop,
    pub(crate) report: Report,
}

enum Sent {
    Done,
    /// The deadline of the end is over.
    TooLate,
}

impl Worker {
    /// Returns when it was stopped and nothing is left, or its deadline is over; or when no connection can come any more.
    pub(crate) async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            if !gather(&mut self.queue.lines, &mut batch, &mut self.stop).await {
                return;
            }
            let late = matches!(self.deliver(&batch).await, Sent::TooLate);
            if late {
                self.queue.counts.drop_lines(batch.len());
                self.drop_rest();
                return;
            }
            batch.clear();
        }
    }

    fn drop_rest(&mut self) {
        self.queue.lines.close();
        while self.queue.lines.try_recv().is_ok() {
            self.queue.counts.drop_lines(1);
        }
    }

    /// Sends a batch until it is taken, refused, or too old.
    async fn deliver(&mut self, batch: &[AccessEvent]) -> Sent {
        let body = Bytes::from(self.encoder.body(batch));
        let gives_up = Instant::now() + GIVE_UP;
        let mut pause = FIRST_PAUSE;
        loop {
            let (after, problem) = match self.attempt(&body).await {
                None => return Sent::TooLate,
                Some(Ok(ExportResult::Taken { rejected, why })) => {
                    self.taken(batch.len(), rejected, &why);
                    return Sent::Done;
                }
                Some(Ok(ExportResult::Refused { why })) => {
                    add(&self.queue.counts.refused, batch.len());
                    let lines = u64::try_from(batch.len()).unwrap_or(u64::MAX);
                    self.report.refused(&self.endpoint, lines, &why, Instant::now());
                    return Sent::Done;
                }
                Some(Ok(ExportResult::Later { after, why })) => (after, why),
                Some(Err(problem)) => (None, problem),
            };
            let now = Instant::now();
            self.report.failed(&self.endpoint, &problem, now);
            if now >= gives_up {
                self.queue.counts.drop_lines(batch.len());
                return Sent::Done;
            }
            self.rest(after.map_or_else(|| with_jitter(pause), |after| after.max(SHORTEST_PAUSE))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One request within its deadline; `None` once that of the end is over.
    async fn attempt(&mut self, body: &Bytes) -> Option<Result<ExportResult, String>> {
        let Self { client, stop, clock, timeout: limit, .. } = self;
        let request = async {
            match timeout(*limit, client.post(body)).await {
                Err(_elapsed) => Err(format!("no answer within {limit:?}")),
                Ok(Err(error)) => Err(error.to_string()),
                Ok(Ok(answer)) => Ok(answer.result(clock.now_unix())),
            }
        };
        tokio::select! {
            biased;
            () = over(stop) => None,
            result = request => Some(result),
        }
    }

    /// A pause, which the request to stop ends: there is one attempt more. From then on pauses are short.
    async fn rest(&mut self, pause: Duration) {
        let stopping = *self.stop.borrow_and_update();
        match stopping {
            Some(deadline) => sleep_until((Instant::now() + pause).min(deadline)).await,
            None => tokio::select! {
                () = sleep(pause) => {}
                _ = self.stop.changed() => {}
            },
        }
    }

    fn taken(&mut self, lines: usize, rejected: u64, why: &str) {
        let Counts { sent, refused, .. } = &*self.queue.counts;
        let rejected = usize::try_from(rejected).unwrap_or(usize::MAX).min(lines);
        add(sent, lines.saturating_sub(rejected));
        add(refused, rejected);
        let now = Instant::now();
        self.report.worked(&self.endpoint, now);
        if rejected > 0 {
            self.report.refused(&self.endpoint, rejected.try_into().unwrap_or(u64::MAX), why, now);
        }
    }
}

/// Waits for lines; `false` once there can be none.
async fn gather(lines: &mut Receiver<AccessEvent>, batch: &mut Vec<AccessEvent>, stop: &mut Stop) -> bool {
    tokio::select! {
        biased;
        count = lines.recv_many(batch, BATCH) => {
            if count == 0 {
                return false;
            }
        }
        () = asked(stop) => return false,
    }
    let full = Instant::now() + GATHER;
    // Looked at from time to time: whoever waited in the queue would be woken by each connection that ends.
    while batch.len() + lines.len() < BATCH && Instant::now() < full && !lines.is_closed() {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = asked(stop) => break,
        }
    }
    while batch.len() < BATCH
        && let Ok(line) = lines.try_recv()
    {
        batch.push(line);
    }
    true
}

/// Completes when the end is asked for.
async fn asked(stop: &mut Stop) {
    // The sender lives as long as the exporter; without it nothing is to be waited for.
    let _ended = stop.wait_for(Option::is_some).await;
}

/// Completes when the deadline of the end is over.
async fn over(stop: &mut Stop) {
    let deadline = match stop.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        Err(_ended) => return,
    };
    if let Some(deadline) = deadline {
        sleep_until(deadline).await;
    }
}

/// Between half of it and all of it, so that sidecars that failed together do not retry together.
fn with_jitter(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
