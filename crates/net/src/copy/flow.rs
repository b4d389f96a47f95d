//! One direction of a copy: read from one stream, write to the other, pass on the end.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use portcullis_buffers::{Buffer, PIECE};
use portcullis_wire::{BATCH_LEN, BATCH_PLAINTEXT_LEN};
use tokio::io::{AsyncWrite, ReadBuf};

use super::outcome::{FlowEnd, IoOperation};
use crate::duplex::Duplex;

/// How much one direction may move before others get a turn: half a megabyte, some hundred microseconds.
const TURN: usize = 2 * BATCH_PLAINTEXT_LEN;

/// What both directions of a connection use in turns.
pub(super) struct Memory {
    /// A buffer with nothing in it. The caller gives it back once both have been polled: most often neither has anything in hand
    /// then.
    pub(super) spare: Option<Buffer>,
    /// Whether a whole buffer may be read, which has to be kept if the writer does not take it. It holds for one poll of the
    /// connection: what it keeps is charged behind it.
    pub(super) has_room: bool,
}

/// The streams of one direction, and what the rest of the connection says about it.
pub(super) struct FlowContext<'a, R, W> {
    pub(super) reader: &'a mut R,
    pub(super) writer: &'a mut W,
    /// Bytes that the writer has taken.
    pub(super) count: &'a AtomicU64,
    pub(super) end_propagation: EndPropagation,
}

#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that were read and not written yet.
    unwritten: Option<Unwritten>,
    state: State,
    /// The writer took bytes that it may still hold (a TLS stream whose socket is full).
    unflushed: bool,
    /// Bytes or an end have moved since [`Flow::take_moved`].
    moved: bool,
    /// The budget for what has to be kept is spent, and there are bytes to be moved: in small pieces, and only when the writer
    /// takes them.
    limited: bool,
}

/// A borrowed buffer whose bytes from `start` to `end` are to be written. Never empty.
#[derive(Debug)]
struct Unwritten {
    buffer: Buffer,
    start: u32,
    end: u32,
}

/// A place in a buffer. Half as wide as the system's, since each connection holds four of them.
fn offset(bytes: usize) -> u32 {
    // A buffer is a quarter of a megabyte.
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl Unwritten {
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Gives a large buffer back if little is left in it.
    fn shrink(&mut self) {
        let rest = self.rest();
        if rest.len() <= PIECE && self.buffer.len() > PIECE {
            *self = Self { start: 0, end: offset(rest.len()), buffer: Buffer::copy_of(rest) };
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Copying,
    /// The reader has ended; the end is being passed on to the writer.
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
        Self { unwritten: None, state: State::Copying, unflushed: false, moved: false, limited: false }
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

    /// How much memory it keeps for what was read and not written yet.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.as_ref().map_or(0, |unwritten| unwritten.buffer.len())
    }

    /// How much is read at once.
    const fn most(&self) -> usize {
        if self.limited { PIECE } else { BATCH_PLAINTEXT_LEN }
    }

    /// Whether it moves its bytes in small pieces.
    pub(super) const fn is_limited(&self) -> bool {
        self.limited
    }

    /// Whether anything has moved since the last call.
    pub(super) const fn take_moved(&mut self) -> bool {
        std::mem::replace(&mut self.moved, false)
    }

    /// The reader's bytes are cut off, but that is to be passed on as an end.
    pub(super) const fn end_truncated(&mut self) {
        self.state = State::Ending(FlowEnd::TruncatedAfterClose);
    }

    /// Moves what can be moved now. Ready when the direction is over. What has to be kept is charged
    /// by the caller; here the budget is only asked.
    pub(super) fn poll<R: Duplex, W: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        flow: &mut FlowContext<'_, R, W>,
        memory: &mut Memory,
    ) -> Poll<Result<(), FlowFault>> {
        let result = self.advance(cx, flow, memory);
        if let Poll::Ready(Err(_)) = result {
            self.state = State::Failed;
            self.unwritten = None;
        }
        if result.is_ready() {
            self.limited = false;
        }
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.shrink();
        }
        result
    }

    fn advance<R: Duplex, W: Duplex>(
        &mut self,
        cx: &mut Context<'_>,
        flow: &mut FlowContext<'_, R, W>,
        memory: &mut Memory,
    ) -> Poll<Result<(), FlowFault>> {
        let FlowContext { reader, writer, count, end_propagation } = flow;
        let mut turn = TURN;
        while turn > 0 {
            ready!(self.write(cx, *writer, count, memory)).map_err(FlowFault::new(IoOperation::Write))?;
            match self.state {
                State::Copying => {
                    self.limited = !memory.has_room;
                    // What is read must be kept if the writer does not take it.
                    let ready = if self.limited { writer.poll_takes(cx) } else { writer.poll_sent(cx) };
                    ready!(ready).map_err(FlowFault::new(IoOperation::Write))?;
                    turn = turn.saturating_sub(self.most());
                    if self.read(cx, *reader, memory).map_err(FlowFault::new(IoOperation::Read))?.is_pending() {
                        self.limited = false;
                        // Nothing to add, so what the writer holds back goes out now.
                        ready!(self.flush(cx, *writer)).map_err(FlowFault::new(IoOperation::Write))?;
                        return Poll::Pending;
                    }
                }
                State::Ending(_) if *end_propagation == EndPropagation::No => self.state = State::Failed,
                State::Ending(end) => {
                    writer.before_shutdown();
                    ready!(Pin::new(&mut **writer).poll_shutdown(cx)).map_err(FlowFault::new(IoOperation::Shutdown))?;
                    self.moved = true;
                    self.state = State::Ended(end);
                }
                State::Ended(_) | State::Failed => return Poll::Ready(Ok(())),
            }
        }
        // A flow that waits for its turn holds no buffer, if the writer accepts the bytes.
        ready!(self.write(cx, *writer, count, memory)).map_err(FlowFault::new(IoOperation::Write))?;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads into the spare buffer, or one that is lent for it. A buffer that stays empty is the spare one afterwards.
    fn read<R: Duplex>(&mut self, cx: &mut Context<'_>, reader: &mut R, memory: &mut Memory) -> io::Result<Poll<()>> {
        const { assert!(BATCH_PLAINTEXT_LEN + R::SPARE_ROOM <= BATCH_LEN, "a buffer has no room for that") };
        let mut buffer = memory.spare.take().unwrap_or_else(Buffer::take);
        // Without room, a read of nothing would pass for the end.
        let space = buffer.get_mut(..self.most() + R::SPARE_ROOM).ok_or(io::ErrorKind::OutOfMemory)?;
        let mut space = ReadBuf::new(space);
        let polled = Pin::new(reader).poll_read(cx, &mut space)?;
        let end = space.filled().len();
        if polled.is_ready() {
            self.moved = true;
            if end > 0 {
                self.unwritten = Some(Unwritten { buffer, start: 0, end: offset(end) });
                return Ok(Poll::Ready(()));
            }
            self.state = State::Ending(FlowEnd::Finished);
        }
        memory.spare = Some(buffer);
        Ok(polled)
    }

    /// Writes what is in hand, all of it. With its last byte the buffer becomes the spare one.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut W,
        count: &AtomicU64,
        memory: &mut Memory,
    ) -> Poll<io::Result<()>> {
        while let Some(unwritten) = &mut self.unwritten {
            let written = ready!(Pin::new(&mut *writer).poll_write(cx, unwritten.rest()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            count.fetch_add(u64::try_from(written).unwrap_or(u64::MAX), Ordering::Relaxed);
            self.moved = true;
            self.unflushed = true;
            unwritten.start += offset(written);
            if unwritten.start >= unwritten.end {
                // A copy of a rest is too small to be read into.
                let buffer = self.unwritten.take().map(|unwritten| unwritten.buffer);
                memory.spare = buffer.filter(|buffer| buffer.len() == BATCH_LEN).or_else(|| memory.spare.take());
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
    /// It is passed on to the writer.
    Yes,
    /// It just ends the direction; the writer is to be reset later.
    No,
}
