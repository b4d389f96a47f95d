//! Protocol detection: reads the first bytes of a connection until its protocol is known.
//!
//! The bytes are read, not peeked at: a peek at an incomplete ClientHello would return at once, over and over.
//! [`crate::Replay`] gives them back. A connection that has sent nothing holds no buffer.
//!
//! `portcullis-wire` parses the bytes. The caller decides what follows from them.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portcullis_wire::{HANDSHAKE_RECORD, HelloInfo, HelloParser, Opening, Progress};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, timeout_at};

/// How much is read at a time. The ClientHello of a sidecar has 1,500 to 1,900 bytes, most of it a post-quantum key share.
const READ_SIZE: usize = 2048;

/// The most bytes that are read before the protocol is known. A ClientHello may have 64 KiB, which takes little more in
/// records of a normal size. In records of one byte each it would take six times as much; TLS could not be terminated from
/// that anyway, so it counts as malformed.
const MAX_SEEN: usize = 66 * 1024;

/// What counts as TLS. Either way a ClientHello is read to its end, so that one that is never completed is noticed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sniff {
    /// Anything with the first byte of TLS. For STRICT, which terminates all TLS and refuses everything else.
    FirstByte,
    /// Only what can be the start of a ClientHello. For PERMISSIVE, where its ALPN names decide who terminates it.
    Hello,
}

/// The result of detection.
#[derive(Debug)]
pub struct Detected {
    /// What the client opened with.
    pub opening: Opening,
    /// Every byte that was read, in order.
    pub seen: Vec<u8>,
    /// The client sent its FIN before its protocol was known. Without one, an undecided opening means that the deadline passed.
    /// A FIN after a decided opening has not been read yet.
    pub eof: bool,
    /// What the hello says, if a whole one was read.
    pub hello: Option<HelloInfo>,
}

/// Detection that is cancel-safe: no byte is lost when [`Detector::run`] is dropped, so it can be raced against a deadline,
/// or against an app that speaks first.
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

    /// Reads until the protocol is known or the client sent its FIN. May be dropped and called again; after it has returned,
    /// it returns at once.
    ///
    /// # Errors
    /// The error of a read, such as a reset.
    pub async fn run<IO: AsyncRead + Unpin>(&mut self, io: &mut IO) -> io::Result<()> {
        poll_fn(|cx| self.poll(cx, io)).await
    }

    /// Whether at least one byte has come.
    #[must_use]
    pub fn has_bytes(&self) -> bool {
        !self.seen.is_empty()
    }

    /// Ends detection with what is known so far.
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
            // On the stack, not in the future: a silent client holds no buffer.
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

/// Reads until the protocol is known, the client sent its FIN, or `deadline` passed; after the last two the opening may be
/// [`Opening::Silent`] or [`Opening::Incomplete`].
///
/// # Errors
/// The error of a read, such as a reset.
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
