//! Lines on their way to standard output, written by a thread of their own.
//!
//! A reader that stalls would otherwise stop the data plane, which a client could bring about by being refused often enough.
//! What does not fit is dropped and counted. `tracing-appender` does the same, but at the end says on standard output that
//! it could not write there, and waits for ever to do so.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that may wait for their reader; some 2 MB.
const WAITING_LINES: usize = 4096;
/// How long lines are gathered before they are written together. Woken for each line, this thread would take more time than
/// the line itself.
const GATHER: Duration = Duration::from_millis(2);
/// What is written at once, at most, but for the line that exceeds it.
const BATCH: usize = 64 * 1024;
/// How long the end of the process waits for what has not been written.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before this has been written.
    End(SyncSender<()>),
}

/// Where lines go. A clone is a pointer.
#[derive(Clone)]
pub struct Output(Option<Queue>);

#[derive(Clone)]
struct Queue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Dropped, it waits for what has not been written yet, for a second at most.
pub(crate) struct Flush(Output);

impl Output {
    /// Standard output, without a thread between: for tests.
    #[must_use]
    pub const fn direct() -> Self {
        Self(None)
    }

    /// Standard output, through a thread that is started here.
    pub(crate) fn threaded() -> io::Result<(Self, Flush)> {
        // Not the standard library's handle: its lock would be held by a thread that waits for the reader.
        let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (sender, receiver) = sync_channel(WAITING_LINES);
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&receiver, stdout))?;
        let output = Self(Some(Queue { sender, dropped: Arc::default() }));
        Ok((output.clone(), Flush(output)))
    }

    /// That nobody reads it is no reason to do anything else differently.
    pub(crate) fn print(&self, line: &str) {
        let _unwritable = self.clone().write_all(line.as_bytes());
    }

    /// Lines that were dropped because nobody read.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.dropped.load(Ordering::Relaxed))
    }
}

fn write_all(lines: &Receiver<Message>, mut stdout: impl Write) {
    while let Ok(first) = lines.recv() {
        if matches!(first, Message::Line(_)) {
            thread::sleep(GATHER);
        }
        let (mut batch, mut next) = (Vec::new(), Some(first));
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.extend_from_slice(&line),
                Message::End(done) => {
                    write(&mut stdout, &mut batch);
                    let _waiting = done.send(());
                }
            }
            next = if batch.len() < BATCH { lines.try_recv().ok() } else { None };
        }
        write(&mut stdout, &mut batch);
    }
}

fn write(stdout: &mut impl Write, batch: &mut Vec<u8>) {
    // A reader that is gone does not come back, but one day the disk may have room again.
    let _unwritable = stdout.write_all(batch);
    batch.clear();
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(queue) = &self.0 else { return io::stdout().lock().write(bytes) };
        if queue.sender.try_send(Message::Line(bytes.to_vec())).is_err() {
            queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        let Some(queue) = &self.0.0 else { return };
        let deadline = Instant::now() + LAST_LINES;
        let (done, written) = sync_channel(1);
        while queue.sender.try_send(Message::End(done.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _all_or_late = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_the_rest_arrives_in_order() {
        let (sender, receiver) = sync_channel(2);
        let output = Output(Some(Queue { sender, dropped: Arc::default() }));
        ["one\n", "two\n", "three\n"].iter().for_each(|line| output.print(line));
        assert_eq!(output.dropped(), 1);
        drop(output);
        let mut written = Vec::new();
        write_all(&receiver, &mut written);
        assert_eq!(written, b"one\ntwo\n");
    }

    #[test]
    fn the_end_waits_for_lines_but_not_for_a_reader() {
        let (sender, receiver) = sync_channel(1);
        let output = Output(Some(Queue { sender, dropped: Arc::default() }));
        output.print("stuck\n");
        let start = Instant::now();
        drop(Flush(output.clone()));
        assert!(start.elapsed() >= LAST_LINES && start.elapsed() < 3 * LAST_LINES);
        let writer = thread::spawn(move || {
            let mut written = Vec::new();
            write_all(&receiver, &mut written);
            written
        });
        output.print("last\n");
        drop(Flush(output));
        assert!(writer.join().unwrap().starts_with(b"stuck\n"));
    }
}
