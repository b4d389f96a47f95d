//! The thread that writes the table: outside of the data plane, which never waits for a disk.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::store::Store;

/// What is new is written so long after it was seen, with what else is new by then.
const GATHER: Duration = Duration::from_millis(200);
/// From one write to the next.
const PAUSE: Duration = Duration::from_millis(700);
/// A slow disk is busy with this table for at most this part of the time.
const BUSY: u32 = 20;
/// Counters that advance are written this often.
const INTERVAL: Duration = Duration::from_secs(10);
/// That time has passed is written this often.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// How long the end of the process waits for the last write.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// The running thread. When this is dropped, it writes a last time; that is waited for, for two seconds at most.
pub struct Writer {
    ledger: Ledger,
    done: Option<Receiver<()>>,
}

/// Which file is to be written.
#[derive(Clone, Copy, Debug)]
pub struct LedgerFile<'a> {
    /// The folder.
    pub folder: &'a Path,
    /// `workload.namespace`.
    pub namespace: &'a str,
    /// `workload.name`.
    pub name: &'a str,
}

impl Writer {
    /// Adds what the file has, and keeps the file up to date from here on. `gather` is called before each write, and moves the
    /// bytes of open connections to the ledger. Never fails: what goes wrong is logged, and the table is kept in memory.
    #[must_use]
    pub fn start(ledger: &Ledger, place: LedgerFile<'_>, gather: impl Fn() + Send + 'static) -> Self {
        let mut work = Work {
            store: Store::new(place.folder, place.namespace, place.name),
            ledger: ledger.clone(),
            is_failing: false,
            last_write: Instant::now(),
            earliest: Instant::now(),
        };
        work.open();
        let (sender, done) = channel();
        let spawned = thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            work.run(&gather);
            // With its lock, which the next one may be waiting for.
            drop(work);
            // Nobody waits if the end came earlier.
            let _late = sender.send(());
        });
        if let Err(error) = &spawned {
            tracing::warn!(%error, "ledger: cannot start its thread; it is kept in memory only");
            ledger.0.is_persistent.store(false, Ordering::Relaxed);
        }
        Self { ledger: ledger.clone(), done: spawned.is_ok().then_some(done) }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.ledger.0.urgent.stop();
            let _done_or_late = done.recv_timeout(LAST_WRITE);
        }
    }
}

struct Work {
    store: Store,
    ledger: Ledger,
    is_failing: bool,
    last_write: Instant,
    /// No write begins before.
    earliest: Instant,
}

impl Work {
    fn run(&mut self, gather: &impl Fn()) {
        let urgent = &self.ledger.clone().0.urgent;
        let mut due: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let wake = due.unwrap_or(now + INTERVAL);
            let is_raised = urgent.wait(wake.saturating_duration_since(now), due.is_some());
            if urgent.is_stopped() {
                gather();
                self.write();
                return;
            }
            let now = Instant::now();
            if is_raised && due.is_none() {
                due = Some((now + GATHER).max(self.earliest));
                continue;
            }
            if due.is_none() {
                gather();
            }
            let is_dirty = self.ledger.0.is_dirty.load(Ordering::Acquire);
            let is_old = now.duration_since(self.last_write) >= HEARTBEAT;
            if due.is_some_and(|due| now >= due) || (due.is_none() && now >= self.earliest && (is_dirty || is_old)) {
                if due.take().is_some() {
                    gather();
                }
                self.write();
            }
        }
    }

    fn write(&mut self) {
        let began = Instant::now();
        // What comes during the write is written the next time.
        self.ledger.0.urgent.lower();
        self.ledger.0.is_dirty.store(false, Ordering::Release);
        let written = self.store.write(&self.ledger);
        let took = began.elapsed();
        let now = Instant::now();
        match written {
            Ok(()) => {
                self.last_write = now;
                self.earliest = now + PAUSE.max(took * BUSY);
                self.succeeded();
            }
            Err(error) => {
                self.ledger.0.is_dirty.store(true, Ordering::Release);
                self.earliest = now + INTERVAL;
                self.ledger.0.write_failures.fetch_add(1, Ordering::Relaxed);
                self.failed(&error);
            }
        }
    }

    fn open(&mut self) {
        match self.store.open(&self.ledger) {
            Ok(()) => self.succeeded(),
            Err(error) => self.failed(&error),
        }
    }

    fn succeeded(&mut self) {
        self.ledger.0.is_persistent.store(true, Ordering::Relaxed);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(file = %self.store.file().display(), "ledger: written again");
        }
    }

    fn failed(&mut self, error: &dyn std::error::Error) {
        self.ledger.0.is_persistent.store(false, Ordering::Relaxed);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(%error, "ledger: cannot write; it is kept in memory, and tried again every 10 s");
        }
    }
}
