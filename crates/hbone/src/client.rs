//! The client's side of a tunnel: a handle that opens streams, and what moves their bytes.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::coalesce::Coalesced;
use crate::count::{StreamCount, Streams};
use crate::limits;
use crate::stream::TunnelStream;
use crate::upkeep::{Due, TunnelEnd, Upkeep};

/// Opens streams on a tunnel.
#[derive(Clone)]
pub struct TunnelHandle(Arc<Shared>);

struct Shared {
    /// `None`: it opens no streams any more. The tunnel ends when those that it has are over.
    request: Mutex<Option<SendRequest<Bytes>>>,
    streams: Streams,
}

/// Moves the bytes of a tunnel. Its streams move only while [`ClientTunnel::end`] is awaited.
pub struct ClientTunnel<IO>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    connection: Connection<Coalesced<IO>, Bytes>,
    upkeep: Upkeep,
    shared: Arc<Shared>,
}

/// What a stream is for.
#[derive(Clone, Debug)]
pub struct Connect {
    /// `:authority`.
    pub destination: SocketAddr,
    /// `baggage`: what this workload says of itself.
    pub baggage: Option<HeaderValue>,
    /// `forwarded`: the address of the app's connection.
    pub client: SocketAddr,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The server has not looked at it: it may be tried on another tunnel.
    #[error("the tunnel takes no more streams")]
    NotTaken,
    /// The answer was not 200.
    #[error("the answer was {0}")]
    Refused(StatusCode),
    /// The stream or the tunnel was lost before the answer.
    #[error("the tunnel failed before the answer: {0}")]
    Failed(h2::Error),
}

impl OpenError {
    fn of(error: h2::Error) -> Self {
        // GOAWAY of the server says which streams it has looked at; `h2` gives this error to the others only, and to new ones.
        let not_taken = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
        if not_taken { Self::NotTaken } else { Self::Failed(error) }
    }
}

/// Begins a tunnel on a connection that is authenticated already. The caller sets the deadline.
///
/// # Errors
/// When the connection fails.
pub async fn connect<IO>(io: IO) -> Result<(TunnelHandle, ClientTunnel<IO>), h2::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (request, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CLIENT_WINDOW)
        .max_frame_size(limits::FRAME)
        .max_header_list_size(limits::HEADER_LIST)
        .max_send_buffer_size(limits::SEND_BUFFER)
        .max_concurrent_reset_streams(limits::KNOWN_RESETS)
        .reset_stream_duration(limits::RESET_KNOWN_FOR)
        .max_local_error_reset_streams(Some(limits::BROKEN_STREAMS))
        .handshake(Coalesced::new(io))
        .await?;
    let upkeep = Upkeep::client(connection.ping_pong());
    let shared = Arc::new(Shared { request: Mutex::new(Some(request)), streams: Streams::default() });
    Ok((TunnelHandle(Arc::clone(&shared)), ClientTunnel { connection, upkeep, shared }))
}

impl Shared {
    fn request(&self) -> Option<SendRequest<Bytes>> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        let closed = self.request.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Outside of the lock: it may wake the tunnel.
        drop(closed);
    }
}

impl TunnelHandle {
    /// Takes a place for one more stream, if the tunnel opens new ones and has less than it may have.
    #[must_use]
    pub fn try_reserve(&self) -> Option<StreamPermit> {
        let request = self.0.request()?;
        let limit = (limits::CLIENT_STREAMS as usize).min(request.current_max_send_streams());
        Some(StreamPermit { request, count: self.0.streams.enter(limit)? })
    }

    /// Whether it opens streams.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.request().is_some()
    }

    /// Opens no streams from now on. The tunnel ends when those that it has are over.
    pub fn close(&self) {
        self.0.close();
    }
}

/// A slot for one stream, which counts against the limit until the stream has ended.
pub struct StreamPermit {
    request: SendRequest<Bytes>,
    count: StreamCount,
}

impl StreamPermit {
    /// Opens the stream, and waits for the answer. The caller sets the deadline; before the answer no byte of the app is sent.
    ///
    /// # Errors
    /// Why there is no stream.
    pub async fn open(self, connect: &Connect) -> Result<TunnelStream, OpenError> {
        let Self { request, count } = self;
        // Nothing was sent before these fail.
        let mut request = request.ready().await.map_err(|_unsent| OpenError::NotTaken)?;
        let (response, send) = request.send_request(head(connect), false).map_err(|_unsent| OpenError::NotTaken)?;
        drop(request);
        let response = response.await.map_err(OpenError::of)?;
        if response.status() != StatusCode::OK {
            return Err(OpenError::Refused(response.status()));
        }
        Ok(TunnelStream::new(send, response.into_body(), Some(count)))
    }
}

impl fmt::Debug for StreamPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamPermit").finish_non_exhaustive()
    }
}

fn head(connect: &Connect) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    // An address is always an authority.
    *request.uri_mut() = Uri::try_from(connect.destination.to_string()).unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(baggage) = &connect.baggage {
        headers.insert("baggage", baggage.clone());
    }
    if let Ok(forwarded) = HeaderValue::try_from(format!("for=\"{}\"", connect.client)) {
        headers.insert("forwarded", forwarded);
    }
    request
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ClientTunnel<IO> {
    /// Moves the bytes of all streams until the tunnel ends. May be dropped and called again.
    pub async fn end(&mut self) -> TunnelEnd {
        poll_fn(|cx| self.poll_end(cx)).await
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<TunnelEnd> {
        loop {
            let in_use = !self.shared.streams.is_empty();
            match self.upkeep.poll(cx, in_use) {
                Poll::Pending => break,
                Poll::Ready(Due::Drain) => self.shared.close(),
                Poll::Ready(Due::GiveUp) => return Poll::Ready(self.ended(TunnelEnd::Unresponsive)),
            }
        }
        match Pin::new(&mut self.connection).poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(self.ended(TunnelEnd::Closed)),
            Poll::Ready(Err(error)) => {
                let end = TunnelEnd::of(&error);
                Poll::Ready(self.ended(end))
            }
        }
    }

    fn ended(&self, end: TunnelEnd) -> TunnelEnd {
        self.shared.close();
        end
    }
}

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelHandle").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> fmt::Debug for ClientTunnel<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTunnel").finish_non_exhaustive()
    }
}
