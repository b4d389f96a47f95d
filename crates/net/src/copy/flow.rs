//! One direction of a copy: read from one stream, write to the other, pass on the end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncWrite, ReadBuf};

use super::{FlowEnd, IoOperation};
use crate::duplex::{Duplex, MAX_SPARE_ROOM};
use crate::pool::{BUFFER_SIZE, Buffer};

/// How many buffers one direction may move before others get a turn: half a megabyte, some hundred microseconds.
const ROUNDS: usize = 2;

#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that were read and not written yet.
    unwritten: Option<Unwritten>,
    state: State,
    /// The writer took bytes that it may still hold (a TLS stream whose socket is full).
    unflushed: bool,
    /// Bytes or an end have moved since [`Flow::take_moved`].
    moved: bool,
}

/// A borrowed buffer whose bytes from `start` to `end` are to be written. Never empty.
#[derive(Debug)]
struct Unwritten {
    buffer: Buffer,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Copying,
    /// The reader has ended; the writer is being told.
    Ending(FlowEnd),
    Ended(FlowEnd),
    /// A failure, of this direction or the other, ended it. Nothing more is to be done.
    Failed,
}

/// A stream failed: the one read from if the operation is `Read`, else the one written to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FlowFault {
    pub(super) operation: IoOperation,
    pub(super) kind: io::ErrorKind,
}

impl FlowFault {
    fn new(operation: IoOperation) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { operation, kind: error.kind() }
    }

    /// The stream knows that more was to come.
    pub(super) fn is_truncation(self) -> bool {
        self.operation == IoOperation::Read && self.kind == io::ErrorKind::UnexpectedEof
    }
}

impl Flow {
    pub(super) const fn new() -> Self {
        Self { unwritten: None, state: State::Copying, unflushed: false, moved: false }
    }

    pub(super) const fn end(&self) -> FlowEnd {
        match self.state {
            State::Ended(end) => end,
            State::Copying | State::Ending(_) | State::Failed => FlowEnd::Open,
        }
    }

    /// Nothing more is to be done.
    pub(super) const fn is_over(&self) -> bool {
        matches!(self.state, State::Ended(_) | State::Failed)
    }

    /// The reader has ended and all its bytes have been given to the writer.
    pub(super) const fn has_delivered_end(&self) -> bool {
        matches!(self.state, State::Ending(_) | State::Ended(_)) && self.unwritten.is_none()
    }

    /// Whether anything has moved since the last call.
    pub(super) const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    /// The reader's bytes are cut off, but that is to be passed on as an end.
    pub(super) const fn end_truncated(&mut self) {
        self.state = State::Ending(FlowEnd::TruncatedAfterClose);
    }

    /// Moves what can be moved now. Ready when the direction is over. `spare` is a buffer that both directions may use, and that
    /// the caller gives back once they have been polled.
    pub(super) fn poll<R: Duplex, W: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        (reader, writer): (&mut R, &mut W),
        (count, end_propagation): (&AtomicU64, EndPropagation),
        spare: &mut Option<Buffer>,
    ) -> Poll<Result<(), FlowFault>> {
        let result = self.advance(cx, (reader, writer), (count, end_propagation), spare);
        if let Poll::Ready(Err(_)) = result {
            self.state = State::Failed;
            self.unwritten = None;
        }
        result
    }

    fn advance<R: Duplex, W: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        (reader, writer): (&mut R, &mut W),
        (count, end_propagation): (&AtomicU64, EndPropagation),
        spare: &mut Option<Buffer>,
    ) -> Poll<Result<(), FlowFault>> {
        for _ in 0..ROUNDS {
            ready!(self.write(cx, (writer, count), spare)).map_err(FlowFault::new(IoOperation::Write))?;
            match self.state {
                State::Copying => {
                    if self.read(cx, reader, spare).map_err(FlowFault::new(IoOperation::Read))?.is_pending() {
                        // Nothing to add, so what the writer holds back goes out now.
                        ready!(self.flush(cx, writer)).map_err(FlowFault::new(IoOperation::Write))?;
                        return Poll::Pending;
                    }
                }
                State::Ending(_) if end_propagation == EndPropagation::No => self.state = State::Failed,
                State::Ending(end) => {
                    writer.before_shutdown();
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx)).map_err(FlowFault::new(IoOperation::Shutdown))?;
                    self.moved = true;
                    self.state = State::Ended(end);
                }
                State::Ended(_) | State::Failed => return Poll::Ready(Ok(())),
            }
        }
        // Whoever has to wait for a turn holds no buffer meanwhile, if the writer lets it.
        ready!(self.write(cx, (writer, count), spare)).map_err(FlowFault::new(IoOperation::Write))?;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads into the spare buffer, or one that is lent for it. A buffer that stays empty is the spare one afterwards.
    fn read<R: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        spare: &mut Option<Buffer>,
    ) -> io::Result<Poll<()>> {
        const { assert!(R::SPARE_ROOM <= MAX_SPARE_ROOM, "a buffer has no room for that") };
        let mut buffer = spare.take().unwrap_or_else(Buffer::take);
        let mut space = ReadBuf::new(buffer.get_mut(..BUFFER_SIZE + R::SPARE_ROOM).unwrap_or_default());
        let polled = Pin::new(reader).poll_read(cx, &mut space)?;
        let end = space.filled().len();
        if polled.is_ready() {
            self.moved = true;
            if end > 0 {
                self.unwritten = Some(Unwritten { buffer, start: 0, end });
                return Ok(Poll::Ready(()));
            }
            self.state = State::Ending(FlowEnd::Finished);
        }
        *spare = Some(buffer);
        Ok(polled)
    }

    /// Writes what is in hand, all of it. With its last byte the buffer becomes the spare one.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        (writer, count): (&mut W, &AtomicU64),
        spare: &mut Option<Buffer>,
    ) -> Poll<io::Result<()>> {
        while let Some(unwritten) = &mut self.unwritten {
            let bytes = unwritten.buffer.get(unwritten.start..unwritten.end).unwrap_or_default();
            let written = ready!(Pin::new(&mut *writer).poll_write(cx, bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            count.fetch_add(u64::try_from(written).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.moved = true;
            self.unflushed = true;
            unwritten.start += written;
            if unwritten.start >= unwritten.end {
                *spare = self.unwritten.take().map(|unwritten| unwritten.buffer);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, writer: &mut W) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(writer).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// What becomes of a clean end of the reader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum EndPropagation {
    /// The writer is told.
    Yes,
    /// It just ends the direction; the writer is to be reset later.
    No,
}
