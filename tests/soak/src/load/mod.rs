//! Loads. Each connection has an outcome, and each outcome is counted as what it is.

mod exchange;
mod held;
mod silent;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::control::{Control, say};
use crate::pattern::Fault;
use crate::protocol::{Header, Kind, PATIENCE};

/// `NAME=VALUE` arguments.
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    pub(crate) fn new(words: &[&str]) -> Self {
        let pairs = words.iter().map(|word| word.split_once('=').expect("NAME=VALUE"));
        Self(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, otherwise: u64) -> u64 {
        self.text(name).map_or(otherwise, |text| text.parse().unwrap())
    }

    fn target(&self) -> SocketAddr {
        self.text("target").expect("target=ADDRESS").parse().unwrap()
    }

    fn tag(&self) -> u8 {
        self.text("tag").unwrap_or("m").as_bytes()[0]
    }
}

#[derive(Default)]
struct Stats {
    attempts: u64,
    open: u64,
    ok: u64,
    /// That must not have happened.
    failed: u64,
    /// Those of the failed that had got an answer before: a connection that was cut.
    broken: u64,
    /// Failed while it was allowed to.
    excused: u64,
    /// Not even tried, because too many were under way.
    skipped: u64,
    /// Checked, in both directions.
    bytes: u64,
    /// Microseconds from the dial to the first checked answer.
    latencies: Vec<u64>,
    /// Milliseconds, of those that are held until the other side ends them.
    lifetimes: Vec<u64>,
    reasons: BTreeMap<String, u64>,
}

/// What a load's connections share.
struct Shared {
    stats: Mutex<Stats>,
    /// Even while connections must not fail, odd while they may; every change is another number.
    epoch: AtomicU64,
    seed: AtomicU64,
    began: Instant,
    stopped: watch::Receiver<bool>,
    resumed: watch::Receiver<bool>,
}

/// How far a connection has come.
struct Progress {
    began: Instant,
    epoch: u64,
    answered: bool,
}

impl Shared {
    /// Waits for the end of the load.
    async fn stopped(&self) {
        let _gone = self.stopped.clone().wait_for(|stopped| *stopped).await.is_ok();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, success: bool) {
        let now = self.epoch.load(Ordering::SeqCst);
        if now.is_multiple_of(2) != success {
            self.epoch.store(now + 1, Ordering::SeqCst);
        }
    }

    fn header(&self, kind: Kind, tag: u8, up: u64, down: u64) -> Header {
        Header { kind, tag, seed: self.seed.fetch_add(1, Ordering::Relaxed), up, down }
    }

    fn begin(&self) -> Progress {
        let mut stats = self.stats();
        stats.attempts += 1;
        stats.open += 1;
        Progress { began: Instant::now(), epoch: self.epoch.load(Ordering::SeqCst), answered: false }
    }

    /// The first answer has come, and was right.
    fn answered(&self, progress: &mut Progress) {
        if !std::mem::replace(&mut progress.answered, true) {
            let micros = u64::try_from(progress.began.elapsed().as_micros()).unwrap();
            self.stats().latencies.push(micros);
        }
    }

    fn bytes(&self, bytes: u64) {
        self.stats().bytes += bytes;
    }

    fn end(&self, progress: &Progress, outcome: Result<(), Fault>) {
        let mut stats = self.stats();
        stats.open -= 1;
        let Err(fault) = outcome else {
            stats.ok += 1;
            return;
        };
        let same = progress.epoch == self.epoch.load(Ordering::SeqCst) && progress.epoch.is_multiple_of(2);
        // Wrong bytes, or an end that looks like the app's own, are never a way to refuse somebody.
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

    fn report(&self) -> serde_json::Value {
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
async fn dial(target: SocketAddr) -> Result<TcpStream, Fault> {
    let stream = late(TcpStream::connect(target)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A step that must not take for ever.
async fn late<T, E>(step: impl Future<Output = Result<T, E>>) -> Result<T, Fault>
where
    Fault: From<E>,
{
    Ok(timeout(PATIENCE, step).await.map_err(|_late| Fault::Late)??)
}

/// Runs one load until standard input ends.
pub(crate) async fn run(kind: &str, options: &Options) -> io::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let (resume, resumed) = watch::channel(false);
    let seed = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let epoch = AtomicU64::new(u64::from(options.text("expect") == Some("may")));
    let shared = Arc::new(Shared {
        stats: Mutex::default(),
        epoch,
        seed: AtomicU64::new(seed),
        began: Instant::now(),
        stopped,
        resumed,
    });
    let mut tasks = JoinSet::new();
    match kind {
        "exchange" => exchange::start(&shared, options, &mut tasks),
        "streams" => streams::start(&shared, options, &mut tasks),
        "once" => held::once(&shared, options, &mut tasks),
        "slow" => held::slow(&shared, options, &mut tasks),
        "silent" => silent::start(&shared, options, &mut tasks),
        _ => panic!("there is no load {kind}"),
    }
    let mut control = Control::new();
    while let Some(line) = control.next().await {
        match line.as_str() {
            "must" => shared.expect(true),
            "may" => shared.expect(false),
            "resume" => drop(resume.send(true)),
            // What is under way comes to its end.
            "stop" => {
                stop.send(true).unwrap();
                finish(&shared, &mut tasks).await;
            }
            "wait" => finish(&shared, &mut tasks).await,
            "stats" => {}
            _ => panic!("a load knows no {line:?}"),
        }
        say(&shared.report());
    }
    Ok(())
}

async fn finish(shared: &Shared, tasks: &mut JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(6 * PATIENCE, all).await.is_err() {
        let mut stats = shared.stats();
        stats.failed += 1;
        stats.reasons.insert("failed: connections that do not end".to_owned(), 1);
    }
}

/// A pause that the end of the load cuts short; whether it goes on.
async fn pause(shared: &Shared, length: Duration) -> bool {
    timeout(length, shared.stopped()).await.is_err()
}
