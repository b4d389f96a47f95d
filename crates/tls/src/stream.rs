//! A TLS connection as an async stream over any IO; the cryptography is in [`Session`].

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use portcullis_buffers::PIECE;
use portcullis_record::{SendBuffer, record_len};
use portcullis_wire::{BATCH_LEN, BATCH_PLAINTEXT_LEN};
use rustls::{AlertDescription, CommonState, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handshake::{alert_name, tls_error};
use crate::scratch::Scratch;
use crate::session::{Output, Session, copy_into};
use crate::unsent::Unsent;

/// The longest record there may be, its header included.
const MAX_RECORD: usize = HEADER_LEN + 16 * 1024 + 256;
const HEADER_LEN: usize = 5;
/// A reader with no more room than this copies in small pieces, because memory is short: the content of one record, and the byte
/// for its type.
const SMALL_READ: usize = PIECE + 1;
/// What a batch of records is longer than its plaintext.
const OVERHEAD: usize = BATCH_LEN - BATCH_PLAINTEXT_LEN;
/// A message of the handshake has to be there as a whole, so this bounds its length: four records of the largest size.
const MAX_HANDSHAKE: usize = 4 * MAX_RECORD;

/// One TLS connection.
///
/// Reading gives `Ok(0)` after the peer's close_notify only. When the peer's bytes end without it, reading first gives all
/// that was received, and then `UnexpectedEof`, so that a truncated stream is never taken for a complete one. `poll_shutdown` sends
/// close_notify and ends the direction; the other one stays open. A write may keep what the connection does not take at
/// once; it is sent before anything is written again, or by a flush.
///
/// While no data is in flight, it holds no buffer. It is boxed, since it moves through several futures, and each would
/// reserve space for it.
pub struct Stream<IO>(Box<Inner<IO>>);

struct Inner<IO> {
    io: IO,
    session: Session,
    /// Received bytes of an incomplete record, or of an incomplete message of the handshake.
    incoming: Vec<u8>,
    received: Pending,
    to_send: Unsent,
    /// `to_send` holds a client's last flight of the handshake, of which nothing was written yet: it may go out with the first
    /// application data.
    holds_last_flight: bool,
    /// The peer's close_notify was received.
    peer_closed: bool,
    /// The peer's FIN was received, with or without close_notify.
    ended: bool,
    /// Our own close_notify was written.
    closed: bool,
    /// What broke TLS. It stays broken.
    failed: Option<Error>,
}

/// Bytes that are consumed from the front. It holds no memory while it is empty.
#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    taken: usize,
}

impl Pending {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= self.bytes.len() {
            *self = Self::default();
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

/// What broke an established stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamFault {
    /// The peer's bytes ended without close_notify.
    Truncated,
    /// The peer sent an alert. On the client's side of TLS 1.3 this is how a server refuses our certificate: after what was
    /// for us the end of the handshake.
    PeerAlert(AlertDescription),
    /// A record does not authenticate: it was changed, replayed or reordered in transit.
    BadRecord,
    /// The peer broke the protocol.
    Protocol,
    /// The connection was reset.
    Reset,
    /// Another error of the socket.
    Io,
}

impl StreamFault {
    /// Classifies an error of [`Stream`].
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match (tls_error(error), error.kind()) {
            (Some(error), _) => Self::of_tls(error),
            (None, io::ErrorKind::UnexpectedEof) => Self::Truncated,
            (None, io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe) => {
                Self::Reset
            }
            (None, _) => Self::Io,
        }
    }

    const fn of_tls(error: &Error) -> Self {
        match error {
            Error::AlertReceived(alert) => Self::PeerAlert(*alert),
            Error::DecryptError => Self::BadRecord,
            _ => Self::Protocol,
        }
    }

    /// The stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::PeerAlert(_) => "peer_alert",
            Self::BadRecord => "bad_record",
            Self::Protocol => "protocol",
            Self::Reset => "reset",
            Self::Io => "io",
        }
    }

    /// The name of the alert, if it was one.
    #[must_use]
    pub const fn alert(self) -> Option<&'static str> {
        match self {
            Self::PeerAlert(alert) => Some(alert_name(alert)),
            Self::Truncated | Self::BadRecord | Self::Protocol | Self::Reset | Self::Io => None,
        }
    }
}

impl<IO> Stream<IO> {
    pub(crate) fn new(io: IO, session: Session) -> Self {
        Self(Box::new(Inner {
            io,
            session,
            incoming: Vec::new(),
            received: Pending::default(),
            to_send: Unsent::default(),
            holds_last_flight: false,
            peer_closed: false,
            ended: false,
            closed: false,
            failed: None,
        }))
    }

    /// What the handshake negotiated; `None` after [`Stream::established`] has replaced rustls.
    pub(crate) fn state(&self) -> Option<&CommonState> {
        self.0.session.state()
    }

    /// The TLS failure of this stream, if there is one. It is kept, so it can be read after the stream has failed, even if the
    /// first error was one of the socket.
    #[must_use]
    pub fn fault(&self) -> Option<StreamFault> {
        self.0.failed.as_ref().map(StreamFault::of_tls)
    }

    /// How much memory it holds: for what was written and not sent, for what was received and not read, and for the part of a
    /// record that has come.
    #[must_use]
    pub fn held(&self) -> usize {
        let Inner { to_send, incoming, received, .. } = &*self.0;
        to_send.held() + incoming.capacity() + received.bytes.capacity()
    }

    /// The connection underneath, for addresses and socket options.
    pub fn get_ref(&self) -> &IO {
        &self.0.io
    }

    /// The connection underneath. Reading or writing it directly breaks the stream; use it to reset the connection.
    pub fn get_mut(&mut self) -> &mut IO {
        &mut self.0.io
    }
}

impl<IO> fmt::Debug for Stream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream<IO> {
    /// Sends what earlier writes have left, and is ready when nothing of it is left: the next write is then offered to the
    /// connection at once. A client's last flight of the handshake, which goes with the next write, counts as sent.
    ///
    /// # Errors
    /// As a write.
    pub fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.0.holds_last_flight { Poll::Ready(Ok(())) } else { self.0.poll_send(cx) }
    }

    /// Runs the handshake to its end. A client's last flight is kept, to be sent together with the first data; the first read or
    /// flush sends it too. After an error the alert has been written, as far as the connection accepted it.
    pub(crate) async fn handshake(&mut self) -> io::Result<()> {
        // Produces the ClientHello. A server has nothing to process yet.
        self.0.process(&mut [], None);
        poll_fn(|cx| self.0.poll_handshake(cx)).await
    }

    /// Replaces the state of the handshake with the record layer, and processes the records that came with the end of the
    /// handshake: the peer may wait for an answer before it sends more.
    ///
    /// # Errors
    /// When the handshake has not left the traffic secrets.
    pub(crate) fn established(self) -> Result<Self, Error> {
        let inner = *self.0;
        let session = inner.session.established()?;
        let mut inner = Inner { session, ..inner };
        if !inner.incoming.is_empty() {
            let mut early = std::mem::take(&mut inner.incoming);
            inner.process(&mut early, None);
        }
        Ok(Self(Box::new(inner)))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Inner<IO> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.check()?;
            if self.holds_last_flight && !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let sent = self.poll_send(cx)?;
            if !self.session.is_handshaking() {
                ready!(sent);
                return Pin::new(&mut self.io).poll_flush(cx);
            }
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // Even if not all was sent: the peer may wait for us to read.
            ready!(self.poll_receive(cx, None))?;
        }
    }

    /// Returns an earlier TLS failure.
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None => Ok(()),
        }
    }

    /// Reads once from the connection and processes the bytes. A TLS failure is stored, not returned, so that data received
    /// before it is delivered first.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: Option<&mut ReadBuf<'_>>) -> Poll<io::Result<()>> {
        let mut scratch = Scratch::lend();
        let held = self.incoming.len();
        let most = if self.session.is_handshaking() {
            MAX_HANDSHAKE
        } else {
            match into.as_ref().map(|into| into.remaining()) {
                Some(room) if room <= SMALL_READ => self.next_record(),
                // The plaintext of so many bytes fits into the reader's buffer. A remainder would have to be kept, and would become
                // a small write of its own.
                Some(room) => (room + OVERHEAD).clamp(MAX_RECORD, BATCH_LEN),
                None => BATCH_LEN,
            }
        };
        let mut space = ReadBuf::new(scratch.incoming.get_mut(held..most).unwrap_or_default());
        if space.remaining() == 0 {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message that is longer than allowed",
            )));
        }
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        let end = held + space.filled().len();
        self.ended = end == held;
        let Some(bytes) = scratch.incoming.get_mut(..end).filter(|_| !self.ended) else {
            return Poll::Ready(Ok(()));
        };
        if let Some(front) = bytes.get_mut(..held) {
            front.copy_from_slice(&self.incoming);
        }
        let (empty, handshaking) = (self.to_send.is_empty(), self.session.is_handshaking());
        self.process(bytes, into);
        // A client's last flight of the handshake. Usually the app's first data can go with it.
        let done = handshaking && !self.session.is_handshaking() && self.failed.is_none();
        self.holds_last_flight = empty && done && self.session.is_client() && !self.to_send.is_empty();
        if self.holds_last_flight {
            return Poll::Ready(Ok(()));
        }
        // An alert or an answer to a key update. If it cannot be sent now, it goes with what is written next; if it cannot
        // be sent at all, that shows there.
        let _tried = self.poll_send(cx);
        Poll::Ready(Ok(()))
    }

    /// How much is to be received until the next record is whole: its header, then exactly the rest. So the beginning of the record
    /// after it stays in the connection, and takes no memory here.
    fn next_record(&self) -> usize {
        let held = self.incoming.len();
        match record_len(&self.incoming) {
            Some(end) if end > held => end.min(MAX_RECORD),
            // Of TLS 1.2 rustls may leave a whole record.
            Some(_) => MAX_RECORD,
            None => HEADER_LEN,
        }
    }

    /// Processes received bytes, and keeps those of an incomplete record or message.
    fn process(&mut self, bytes: &mut [u8], into: Option<&mut ReadBuf<'_>>) {
        let mut output = Output::new(SendBuffer::default(), into);
        let (done, result) = self.session.read(bytes, &mut output);
        let rest = bytes.get(done..).unwrap_or_default();
        let to_send = self.absorb(output);
        // Bytes after close_notify are discarded.
        self.incoming = if self.peer_closed { Vec::new() } else { rest.to_vec() };
        self.to_send.add(to_send.as_slice());
        self.failed = result.err();
    }

    /// Stores the received data and returns what is to be sent.
    fn absorb(&mut self, output: Output<'_, '_>) -> SendBuffer {
        self.received.add(&output.received.rest);
        self.peer_closed |= output.peer_closed;
        output.to_send
    }

    /// After a write: removes the `done` bytes of `incoming` that it consumed, and stores its failure.
    fn after_write(&mut self, done: usize, result: Result<(), Error>) -> io::Result<()> {
        self.incoming.drain(..done.min(self.incoming.len()));
        self.failed = result.err();
        self.check()
    }

    /// After a failure: sends the alert, if it is still queued.
    fn try_send_alert(&mut self, cx: &mut Context<'_>) {
        if self.failed.is_some() {
            let _tried = self.poll_send(cx);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.holds_last_flight = false;
        while !self.to_send.is_empty() {
            let sent = match Pin::new(&mut self.io).poll_write(cx, self.to_send.rest())? {
                Poll::Ready(sent) => sent,
                Poll::Pending => {
                    self.to_send.shrink();
                    return Poll::Pending;
                }
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.to_send.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends as much as the connection takes at once, and keeps the rest.
    fn send_now(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match Pin::new(&mut self.io).poll_write(cx, bytes)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Poll::Pending => {
                    self.to_send.add(bytes);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0;
        let before = buf.filled().len();
        loop {
            let served = copy_into(buf, inner.received.rest());
            inner.received.advance(served);
            if buf.filled().len() > before || buf.remaining() == 0 || inner.peer_closed {
                return Poll::Ready(Ok(()));
            }
            inner.try_send_alert(cx);
            inner.check()?;
            if inner.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            if inner.holds_last_flight {
                // The peer may wait for it. If it cannot be sent, the peer's alert is to be read first.
                let _tried = inner.poll_send(cx);
            }
            ready!(inner.poll_receive(cx, Some(&mut *buf)))?;
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0;
        if !inner.holds_last_flight {
            ready!(inner.poll_send(cx))?;
        }
        inner.check()?;
        if inner.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let data = data.get(..BATCH_PLAINTEXT_LEN).unwrap_or(data);
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut scratch = Scratch::lend();
        if std::mem::take(&mut inner.holds_last_flight) {
            scratch.outgoing.append(inner.to_send.rest());
            inner.to_send = Unsent::default();
        }
        let mut output = Output::new(std::mem::take(&mut scratch.outgoing), None);
        let (done, result) = inner.session.write(&mut inner.incoming, data, &mut output);
        scratch.outgoing = inner.absorb(output);
        let sent = inner.send_now(cx, scratch.outgoing.as_slice());
        inner.after_write(done, result)?;
        sent?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0;
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0;
        if !inner.closed {
            inner.closed = true;
            inner.try_send_alert(cx);
            inner.check()?;
            let mut output = Output::new(SendBuffer::default(), None);
            let (done, result) = inner.session.close(&mut inner.incoming, &mut output);
            let to_send = inner.absorb(output);
            inner.to_send.add(to_send.as_slice());
            inner.after_write(done, result)?;
        }
        ready!(inner.poll_send(cx))?;
        match ready!(Pin::new(&mut inner.io).poll_shutdown(cx)) {
            // The connection is closed already.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

#[cfg(test)]
mod tests;
