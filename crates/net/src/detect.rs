//! Reading the first bytes of a connection until it is known what they are.
//!
//! The bytes are taken from the stream, not peeked at, since a peek at an incomplete hello would return at once again
//! and again; [`crate::Replay`] gives them back. A connection that has sent nothing holds no buffer.
//!
//! What the bytes mean is `portcullis-wire`'s to say, and what follows from it is the caller's.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portcullis_wire::{HANDSHAKE_RECORD, HelloInfo, HelloParser, Opening, Progress};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// How much is read at a time. A mesh hello has 1,500 to 1,900 bytes, most of it a post-quantum key share.
const READ_SIZE: usize = 2048;

/// The most that is taken from a client before it is settled what it is. The message of a hello may have 64 KiB; in honest
/// records these take little more. What comes in records of a byte each would take six times as much, and TLS could not be
/// terminated from it anyway: such a hello counts as malformed.
const MAX_SEEN: usize = 66 * 1024;

/// What counts as TLS. Either way a hello is read to its end, so that it is known who does not send one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sniff {
    /// Whatever has the first byte of TLS: where all TLS is terminated and all else refused.
    FirstByte,
    /// What can be the start of a ClientHello: where its ALPN names decide who terminates it.
    Hello,
}

/// What came.
#[derive(Debug)]
pub struct Detected {
    /// What it is.
    pub opening: Opening,
    /// Every byte that was taken from the stream, in order.
    pub seen: Vec<u8>,
    /// The client ended its direction before it was settled what it is; else an unsettled opening means that time ran
    /// out. An end that comes after a settled opening has not been read yet.
    pub eof: bool,
    /// What the hello says, if a whole one was read.
    pub hello: Option<HelloInfo>,
}

/// Detection as a thing that can be interrupted: no byte is lost when [`Detector::run`] is dropped, so it can be raced
/// against a deadline, or against an app that speaks first.
#[derive(Debug)]
pub struct Detector {
    sniff: Sniff,
    parser: HelloParser,
    progress: Progress,
    seen: Vec<u8>,
    eof: bool,
}

impl Detector {
    /// A detector that has seen nothing.
    #[must_use]
    pub fn new(sniff: Sniff) -> Self {
        Self { sniff, parser: HelloParser::new(), progress: Progress::NeedMore, seen: Vec::new(), eof: false }
    }

    /// Reads until it is settled what the connection is, or the client has ended its direction. May be dropped and
    /// called again; once it has returned, it returns at once.
    ///
    /// # Errors
    /// What reading gives, a reset for example.
    pub async fn run<IO: AsyncRead + Unpin>(&mut self, io: &mut IO) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx, io)).await
    }

    /// Whether at least one byte has come.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Ends detection, with what is known so far.
    #[must_use]
    pub fn finish(self) -> Detected {
        let opening = match self.settled() {
            Some(opening) => opening,
            None => self.parser.at_end(),
        };
        let hello = match self.progress {
            Progress::Hello(hello) => Some(hello),
            Progress::NeedMore | Progress::NotTls | Progress::Malformed => None,
        };
        Detected { opening, seen: self.seen, eof: self.eof, hello }
    }

    fn poll<IO: AsyncRead + Unpin>(&mut self, cx: &mut Context<'_>, io: &mut IO) -> Poll<io::Result<()>> {
        while self.settled().is_none() && !self.eof {
            // On the stack, not in the connection's state: while it waits, a silent client costs nothing.
            let mut space = [MaybeUninit::<u8>::uninit(); READ_SIZE];
            let mut buffer = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buffer))?;
            self.eof = buffer.filled().is_empty();
            self.seen.extend_from_slice(buffer.filled());
            if self.settled().is_none() {
                self.progress = self.parser.push(buffer.filled());
            }
        }
        Poll::Ready(Ok(()))
    }

    fn settled(&self) -> Option<Opening> {
        if self.progress.opening().is_none() && self.seen.len() >= MAX_SEEN {
            return Some(Opening::Malformed);
        }
        match (self.progress.opening(), self.sniff, self.seen.first()) {
            (Some(Opening::Plain), Sniff::FirstByte, Some(&HANDSHAKE_RECORD)) => Some(Opening::UnreadTls),
            (opening, ..) => opening,
        }
    }
}

/// Reads until it is settled what the connection is, the client ends its direction, or `deadline` is over; the last two
/// leave it [`Opening::Silent`] or [`Opening::Incomplete`].
///
/// # Errors
/// What reading gives, a reset for example.
pub async fn detect<IO: AsyncRead + Unpin>(io: &mut IO, deadline: Instant, sniff: Sniff) -> io::Result<Detected> {
    let mut detector = Detector::new(sniff);
    match timeout_at(deadline, detector.run(io)).await {
        Ok(result) => result?,
        Err(_elapsed) => {}
    }
    Ok(detector.finish())
}

#[cfg(test)]
mod tests;
