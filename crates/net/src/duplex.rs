//! The two ends of a forwarded connection, as the copy loop sees them.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::replay::Replay;
use crate::socket;

/// A byte stream with two independent directions that can also be ended by a reset.
///
/// A clean end of the read direction is a read of nothing. An end that the stream knows not to be clean, such as TLS
/// without its close_notify, must be an [`io::ErrorKind::UnexpectedEof`], given after every byte that came before it.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Room that a read wants beyond what it gives. TLS opens a record together with the byte for its type, and straight into
    /// the reader's buffer only if both fit. More than a buffer has beside its content does not compile.
    const SPARE_ROOM: usize = 0;

    /// Makes the close that comes when the stream is dropped a reset (`SO_LINGER` of zero).
    ///
    /// # Errors
    /// If the socket accepts no more options, which means that it is closed.
    fn reset_on_close(&self) -> io::Result<()>;

    /// Whether everything that was written and flushed is on the wire, so that a reset would not discard it.
    fn all_sent(&self) -> bool;

    /// Ready when nothing is left of what was written before, so that what is written next is not kept behind it.
    ///
    /// # Errors
    /// As a write.
    fn poll_sent(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ready when a small write is most likely taken as a whole, and nothing of it has to be kept.
    ///
    /// # Errors
    /// As a write.
    fn poll_takes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx)
    }

    /// How much memory it holds until it is used again: for what was written and could not be sent, and for what was received and
    /// could not be given out.
    fn held(&self) -> usize {
        0
    }

    /// From now on the kernel may hold back small writes, to send them together with the FIN. A stream without a socket does
    /// nothing.
    fn cork(&self) {}

    /// Called right before `shutdown`, so that what it writes (such as close_notify) may go with the FIN. A stream whose shutdown
    /// writes nothing does nothing.
    fn before_shutdown(&self) {}
}

impl Duplex for TcpStream {
    fn poll_takes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            // A write that was taken as a whole may have filled the socket, which the runtime does not know yet. It learns that
            // here, and wakes us. The kernel is asked in between the runtime's own steps, so that no event in the meantime is
            // taken for an older one and lost.
            let takes = || if socket::is_writable(self) { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) };
            match self.try_io(Interest::WRITABLE, takes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn reset_on_close(&self) -> io::Result<()> {
        socket::reset_on_close(self)
    }

    fn all_sent(&self) -> bool {
        socket::all_sent(self)
    }

    fn cork(&self) {
        socket::cork(self);
    }
}

impl<IO: Duplex> Duplex for Replay<IO> {
    const SPARE_ROOM: usize = IO::SPARE_ROOM;

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_takes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_takes(cx)
    }

    fn held(&self) -> usize {
        self.unread_capacity() + self.get_ref().held()
    }

    fn reset_on_close(&self) -> io::Result<()> {
        self.get_ref().reset_on_close()
    }

    fn all_sent(&self) -> bool {
        self.get_ref().all_sent()
    }

    fn cork(&self) {
        self.get_ref().cork();
    }
}

/// Prepares both ends to be reset when they are dropped. For a connection that is cut from outside (a policy change, a
/// forced drain): neither end may take what it got for the whole.
pub fn reset_both(one: &impl Duplex, other: &impl Duplex) {
    // An end that takes no options any more is closed already, which is what was wanted.
    let _ = one.reset_on_close();
    let _ = other.reset_on_close();
}
