//! One stream of a tunnel as a byte stream.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use portcullis_net::Duplex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::count::StreamCount;

/// The most that one write takes: what is written is copied, and other streams are to have their turn.
const MAX_WRITE: usize = 64 * 1024;

/// A byte stream through a tunnel. END_STREAM is the end of a direction, RST_STREAM a reset, with one exception: a peer that resets
/// with NO_ERROR when it has ended its own direction wants no more bytes, and what it sent is whole. HTTP/2 forgets the end when
/// the reset comes before all was read, so that this too is a reset then.
pub struct TunnelStream {
    send: SendStream<Bytes>,
    /// Locked only to be asked what it holds, which `h2` answers to the owner alone.
    recv: Mutex<RecvStream>,
    /// Received and not read yet.
    unread: Bytes,
    /// The peer has ended its direction, and all of it was read.
    peer_ended: bool,
    /// Our direction has ended.
    ended: bool,
    /// To be reset when it is dropped, whatever it has come to.
    reset: AtomicBool,
    /// Among the streams of a tunnel that this side opened.
    _count: Option<StreamCount>,
}

impl TunnelStream {
    pub(crate) const fn new(send: SendStream<Bytes>, recv: RecvStream, count: Option<StreamCount>) -> Self {
        let reset = AtomicBool::new(false);
        Self {
            send,
            recv: Mutex::new(recv),
            unread: Bytes::new(),
            peer_ended: false,
            ended: false,
            reset,
            _count: count,
        }
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream").field("id", &self.send.stream_id()).finish_non_exhaustive()
    }
}

/// Whatever ended the stream or its tunnel: what came before it may not be the whole.
fn reset_by(error: h2::Error) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let recv = this.recv.get_mut().unwrap_or_else(PoisonError::into_inner);
        while this.unread.is_empty() {
            if this.peer_ended {
                return Poll::Ready(Ok(()));
            }
            match ready!(recv.poll_data(cx)) {
                Some(Ok(bytes)) => this.unread = bytes,
                Some(Err(error)) => return Poll::Ready(Err(reset_by(error))),
                None => this.peer_ended = true,
            }
        }
        let count = this.unread.len().min(buffer.remaining());
        buffer.put_slice(this.unread.get(..count).unwrap_or_default());
        this.unread.advance(count);
        // The peer may send as much as was read here. What the stream has lost by an error is released by the tunnel.
        let _released = recv.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = bytes.len().min(MAX_WRITE);
        if this.send.capacity() == 0 {
            this.send.reserve_capacity(wanted);
            while this.send.capacity() == 0 {
                match ready!(this.send.poll_capacity(cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(reset_by(error))),
                    None => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                }
            }
        }
        let count = wanted.min(this.send.capacity());
        let piece = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        match this.send.send_data(piece, false) {
            Ok(()) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(reset_by(error))),
        }
    }

    /// What was written is sent by the tunnel.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            this.ended = true;
            this.send.send_data(Bytes::new(), true).map_err(reset_by)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Duplex for TunnelStream {
    fn held(&self) -> usize {
        let mut recv = self.recv.lock().unwrap_or_else(PoisonError::into_inner);
        // `unread` included, since it is not released yet.
        recv.flow_control().used_capacity()
    }

    fn reset_on_close(&self) -> io::Result<()> {
        self.reset.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Nobody waits for it: the other side of a tunnel stream is an app's connection, whose end is a FIN or a reset and never a cut-off
    /// that has to be delivered first.
    fn all_sent(&self) -> bool {
        true
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) || !self.peer_ended || !self.ended {
            self.send.send_reset(Reason::CONNECT_ERROR);
        }
    }
}
