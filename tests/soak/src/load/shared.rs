//! What the connections of a load share: options, counters, deadlines.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::pattern::Fault;
use crate::protocol::{Header, Kind, PATIENCE};

/// `NAME=VALUE` arguments.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    pub(crate) fn new(words: &[&str]) -> Self {
        let pairs = words.iter().map(|word| word.split_once('=').expect("NAME=VALUE"));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).map_or(otherwise, |text| text.parse().unwrap())
    }

    pub(super) fn target(&self) -> SocketAddr {
        self.text("target").expect("target=ADDRESS").parse().unwrap()
    }

    pub(super) fn tag(&self) -> u8 {
        self.text("tag").unwrap_or("m").as_bytes()[0]
    }
}

#[derive(Default)]
pub(super) struct Stats {
    pub(super) attempts: u64,
    pub(super) open: u64,
    pub(super) ok: u64,
    /// That must not have happened.
    pub(super) failed: u64,
    /// Those of the failed that had got an answer before: a connection that was cut.
    pub(super) broken: u64,
    /// Failed while it was allowed to.
    pub(super) excused: u64,
    /// Not tried, because too many connections were open.
    pub(super) skipped: u64,
    /// Checked, in both directions.
    pub(super) bytes: u64,
    /// Microseconds from the dial to the first checked answer.
    pub(super) latencies: Vec<u64>,
    /// Milliseconds, of those that are held until the other side ends them.
    pub(super) lifetimes: Vec<u64>,
    pub(super) reasons: BTreeMap<String, u64>,
}

/// What a load's connections share.
pub(super) struct Shared {
    pub(super) stats: Mutex<Stats>,
    /// Even while connections must not fail, odd while they may; every change is another number.
    pub(super) epoch: AtomicU64,
    pub(super) seed: AtomicU64,
    pub(super) began: Instant,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) resumed: watch::Receiver<bool>,
}

/// How far a connection has come.
pub(super) struct Progress {
    pub(super) began: Instant,
    pub(super) epoch: u64,
    pub(super) answered: bool,
}

impl Shared {
    /// Waits for the end of the load.
    pub(super) async fn stopped(&self) {
        let _gone = self.stopped.clone().wait_for(|stopped| *stopped).await.is_ok();
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect(&self, success: bool) {
        let now = self.epoch.load(Ordering::SeqCst);
        if now.is_multiple_of(2) != success {
            self.epoch.store(now + 1, Ordering::SeqCst);
        }
    }

    pub(super) fn header(&self, kind: Kind, tag: u8, up: u64, down: u64) -> Header {
        Header { kind, tag, seed: self.seed.fetch_add(1, Ordering::Relaxed), up, down }
    }

    pub(super) fn begin(&self) -> Progress {
        let mut stats = self.stats();
        stats.attempts += 1;
        stats.open += 1;
        Progress { began: Instant::now(), epoch: self.epoch.load(Ordering::SeqCst), answered: false }
    }

    /// The first answer has come, and was right.
    pub(super) fn answered(&self, progress: &mut Progress) {
        if !std::mem::replace(&mut progress.answered, true) {
            let micros = u64::try_from(progress.began.elapsed().as_micros()).unwrap();
            self.stats().latencies.push(micros);
        }
    }

    pub(super) fn bytes(&self, bytes: u64) {
        self.stats().bytes += bytes;
    }

    pub(super) fn end(&self, progress: &Progress, outcome: Result<(), Fault>) {
        let mut stats = self.stats();
        stats.open -= 1;
        let Err(fault) = outcome else {
            stats.ok += 1;
            return;
        };
        let same = progress.epoch == self.epoch.load(Ordering::SeqCst) && progress.epoch.is_multiple_of(2);
        // A refusal never looks like wrong bytes or a normal end of stream.
        let lie = match fault {
            Fault::Corrupt(_) | Fault::Short(_) => true,
            Fault::Empty => progress.answered,
            Fault::Io(_) | Fault::Late => false,
        };
        let counted = if same || lie { "failed" } else { "excused" };
        if same || lie {
            stats.failed += 1;
        } else {
            stats.excused += 1;
        }
        if progress.answered {
            stats.broken += 1;
        }
        let when = if progress.answered { "after an answer" } else { "before an answer" };
        *stats.reasons.entry(format!("{counted} {when}: {fault}")).or_default() += 1;
    }

    pub(super) fn report(&self) -> serde_json::Value {
        let mut stats = self.stats();
        stats.latencies.sort_unstable();
        stats.lifetimes.sort_unstable();
        let at = |values: &[u64], percent: usize| {
            values.get((values.len() * percent / 100).min(values.len().max(1) - 1)).copied()
        };
        let reasons: Vec<_> = stats.reasons.iter().take(20).collect();
        json!({
            "seconds": self.began.elapsed().as_secs_f64(),
            "attempts": stats.attempts, "open": stats.open, "ok": stats.ok, "failed": stats.failed,
            "broken": stats.broken, "excused": stats.excused, "skipped": stats.skipped, "bytes": stats.bytes,
            "p50_us": at(&stats.latencies, 50), "p99_us": at(&stats.latencies, 99), "max_us": at(&stats.latencies, 100),
            "ended": stats.lifetimes.len(), "p50_life_ms": at(&stats.lifetimes, 50), "max_life_ms": at(&stats.lifetimes, 100),
            "reasons": reasons,
        })
    }
}

/// Dials the target, under a deadline.
pub(super) async fn dial(target: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = late(TcpStream::connect(target)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A step that must not take for ever.
pub(super) async fn late<T, E>(step: impl Future<Output = Result<T, E>>) -> Result<T, Fault>
where
    Fault: From<E>,
{
    Ok(timeout(PATIENCE, step).await.map_err(|_late| Fault::Late)??)
}

/// A pause that the end of the load cuts short; whether it goes on.
pub(super) async fn pause(shared: &Shared, length: Duration) -> bool {
    timeout(length, shared.stopped()).await.is_err()
}
