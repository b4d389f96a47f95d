//! Lines on their way to standard output, written by a thread of their own.
//!
//! Otherwise a reader that stalls would stop the data plane; a client could cause that with enough refused connections.
//! What does not fit is dropped and counted. `tracing-appender` does the same, but at the end says on standard output that
//! it could not write there, and waits for ever to do so.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

/// Bytes of lines that may wait for their reader. A bounded channel would reserve memory for all of them in every
/// process.
const MAX_WAITING: usize = 2 * 1024 * 1024;
/// How long lines are collected before they are written together. Waking this thread for each line would cost more than the
/// line itself.
const GATHER: Duration = Duration::from_millis(2);
/// How much is written at once; a batch ends with the line that exceeds it.
const BATCH: usize = 64 * 1024;
/// How long the end of the process waits for what has not been written.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before this has been written.
    End(Sender<()>),
}

/// Where lines go. A clone is a pointer.
#[derive(Clone)]
pub struct Output(Option<Queue>);

#[derive(Clone)]
struct Queue {
    sender: Sender<Message>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Bytes in the queue.
    waiting: AtomicUsize,
    /// Lines that did not fit.
    dropped: AtomicU64,
}

/// Waits when it is dropped until everything is written, for a second at most.
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
        let (output, receiver, counts) = Self::queue();
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&receiver, &counts, stdout))?;
        Ok((output.clone(), Flush(output)))
    }

    fn queue() -> (Self, Receiver<Message>, Arc<Counts>) {
        let (sender, receiver) = channel();
        let counts = Arc::<Counts>::default();
        (Self(Some(Queue { sender, counts: Arc::clone(&counts) })), receiver, counts)
    }

    /// Prints a line. A failure is ignored: serving goes on without logs.
    pub(crate) fn print(&self, line: &str) {
        let _unwritable = self.clone().write_all(line.as_bytes());
    }

    /// Lines that were dropped because the reader was too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |queue| queue.counts.dropped.load(Ordering::Relaxed))
    }
}

fn write_all(lines: &Receiver<Message>, counts: &Counts, mut stdout: impl Write) {
    while let Ok(first) = lines.recv() {
        if matches!(first, Message::Line(_)) {
            thread::sleep(GATHER);
        }
        let (mut batch, mut next) = (Vec::new(), Some(first));
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    counts.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                    batch.extend_from_slice(&line);
                }
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
        let counts = &queue.counts;
        let fits = counts.waiting.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() <= MAX_WAITING;
        if !fits || queue.sender.send(Message::Line(bytes.to_vec())).is_err() {
            counts.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
            counts.dropped.fetch_add(1, Ordering::Relaxed);
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
        let (done, written) = channel();
        if queue.sender.send(Message::End(done)).is_ok() {
            let _all_or_late = written.recv_timeout(LAST_LINES);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn written(lines: &Receiver<Message>, counts: &Counts) -> Vec<u8> {
        let mut written = Vec::new();
        write_all(lines, counts, &mut written);
        written
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_the_rest_arrives_in_order() {
        let (output, lines, counts) = Output::queue();
        let large = "x".repeat(MAX_WAITING - 4) + "\n";
        ["one\n", &large, "two\n", &large].iter().for_each(|line| output.print(line));
        assert_eq!(output.dropped(), 2, "the large ones, which do not fit with another");
        drop(output);
        assert_eq!(written(&lines, &counts), b"one\ntwo\n");
    }

    #[test]
    fn what_was_written_makes_room_again() {
        let (output, lines, counts) = Output::queue();
        let half = "x".repeat(MAX_WAITING / 2);
        let print = |times: usize| (0..times).for_each(|_| output.print(&half));
        print(3);
        assert_eq!(output.dropped(), 1);
        let reader = thread::spawn(move || written(&lines, &counts).len());
        drop(Flush(output.clone()));
        print(2);
        assert_eq!(output.dropped(), 1);
        drop(output);
        assert_eq!(reader.join().unwrap(), 4 * half.len());
    }

    #[test]
    fn the_end_waits_for_lines_but_not_for_a_reader() {
        let (output, lines, counts) = Output::queue();
        output.print("stuck\n");
        let start = Instant::now();
        drop(Flush(output.clone()));
        assert!(start.elapsed() >= LAST_LINES && start.elapsed() < 3 * LAST_LINES);
        let reader = thread::spawn(move || written(&lines, &counts));
        output.print("last\n");
        drop(Flush(output));
        assert_eq!(reader.join().unwrap(), b"stuck\nlast\n");
    }
}
