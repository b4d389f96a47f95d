//! An established connection, behind a small seam so that its insides can be made faster or smaller later.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{AlertDescription, Error};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::handshake::{alert_name, tls_error};

/// One encrypted connection.
///
/// Reading gives `Ok(0)` after the peer's close_notify only. When the peer's bytes end without it, reading first gives all
/// that came, and then `UnexpectedEof`, so that a cut connection cannot pass for a finished one. `poll_shutdown` sends
/// close_notify and ends the direction; the other one stays open.
///
/// It is a pointer, since it is handed through several futures, and each of them would keep room for the kilobyte that
/// rustls' state is.
#[derive(Debug)]
pub struct Stream<IO>(Box<Inner<IO>>);

#[derive(Debug)]
enum Inner<IO> {
    Client(tokio_rustls::client::TlsStream<IO>),
    Server(tokio_rustls::server::TlsStream<IO>),
}

/// What broke an established stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StreamFault {
    /// The peer's bytes ended without close_notify.
    Truncated,
    /// The peer sent an alert. On the client's side of TLS 1.3 this is how a server refuses our certificate: after what was
    /// for us the end of the handshake.
    PeerAlert(AlertDescription),
    /// The peer broke the protocol, or bytes were changed on the way.
    Protocol,
    /// The connection was reset.
    Reset,
    /// Another error of the socket.
    Io,
}

impl StreamFault {
    /// Finds out what an error of [`Stream`] means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match (tls_error(error), error.kind()) {
            (Some(Error::AlertReceived(alert)), _) => Self::PeerAlert(*alert),
            (Some(_), _) => Self::Protocol,
            (None, io::ErrorKind::UnexpectedEof) => Self::Truncated,
            (None, io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe) => {
                Self::Reset
            }
            (None, _) => Self::Io,
        }
    }

    /// The stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::PeerAlert(_) => "peer_alert",
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
            Self::Truncated | Self::Protocol | Self::Reset | Self::Io => None,
        }
    }
}

impl<IO> Stream<IO> {
    pub(crate) fn client(stream: tokio_rustls::client::TlsStream<IO>) -> Self {
        Self(Box::new(Inner::Client(stream)))
    }

    pub(crate) fn server(stream: tokio_rustls::server::TlsStream<IO>) -> Self {
        Self(Box::new(Inner::Server(stream)))
    }

    /// The connection underneath, for addresses and socket options.
    pub fn get_ref(&self) -> &IO {
        match &*self.0 {
            Inner::Client(stream) => stream.get_ref().0,
            Inner::Server(stream) => stream.get_ref().0,
        }
    }

    /// The connection underneath. Reading or writing it directly breaks the stream; it is for giving up, as by a reset.
    pub fn get_mut(&mut self) -> &mut IO {
        match &mut *self.0 {
            Inner::Client(stream) => stream.get_mut().0,
            Inner::Server(stream) => stream.get_mut().0,
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0 {
            Inner::Client(stream) => Pin::new(stream).poll_read(cx, buf),
            Inner::Server(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self.0 {
            Inner::Client(stream) => Pin::new(stream).poll_write(cx, buf),
            Inner::Server(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0 {
            Inner::Client(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Inner::Server(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0 {
            Inner::Client(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Server(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0 {
            Inner::Client(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Server(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
