//! The server's side of a tunnel.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::coalesce::Coalesced;
use crate::limits;
use crate::request::{Request, Tally};
use crate::upkeep::{Due, TunnelEnd, Upkeep};

/// A tunnel that a client opened. Its streams move only while [`ServerTunnel::next`] is awaited.
pub struct ServerTunnel<IO> {
    connection: Connection<Coalesced<IO>, Bytes>,
    upkeep: Upkeep,
    tally: Arc<Tally>,
    /// No new stream is taken.
    draining: bool,
    /// It was ended by this side, with this reason; what is left is to be sent.
    given_up: Option<TunnelEnd>,
}

/// What happens on a tunnel.
#[derive(Debug)]
pub enum Event {
    /// The client wants a stream.
    Request(Request),
    /// The tunnel has ended.
    Ended(TunnelEnd),
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ServerTunnel<IO> {
    /// Reads the client's preface and sends our settings. The caller sets the deadline.
    ///
    /// # Errors
    /// When the client does not speak HTTP/2, or goes away.
    pub async fn handshake(io: IO) -> Result<Self, h2::Error> {
        let mut connection = Builder::new()
            .max_concurrent_streams(limits::STREAMS)
            .initial_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::SERVER_WINDOW)
            .max_frame_size(limits::FRAME)
            .max_header_list_size(limits::HEADER_LIST)
            .max_send_buffer_size(limits::SEND_BUFFER)
            .max_pending_accept_reset_streams(limits::PENDING_RESETS)
            .max_concurrent_reset_streams(limits::KNOWN_RESETS)
            .reset_stream_duration(limits::RESET_KNOWN_FOR)
            .max_local_error_reset_streams(Some(limits::BROKEN_STREAMS))
            .handshake(Coalesced::new(io))
            .await?;
        let upkeep = Upkeep::server(connection.ping_pong());
        Ok(Self { connection, upkeep, tally: Arc::default(), draining: false, given_up: None })
    }

    /// Moves the bytes of all streams until something happens. May be dropped and called again.
    pub async fn next(&mut self) -> Event {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if self.given_up.is_none() {
                if self.tally.is_rapid_reset() {
                    self.give_up(TunnelEnd::Flood, Reason::ENHANCE_YOUR_CALM);
                } else if let Poll::Ready(due) = self.upkeep.poll(cx, self.connection.has_streams()) {
                    match due {
                        Due::Drain => self.drain(),
                        // Nobody reads what would be sent.
                        Due::GiveUp => return Poll::Ready(Event::Ended(TunnelEnd::Unresponsive)),
                    }
                    continue;
                }
            }
            return match self.connection.poll_accept(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok((request, respond)))) if self.given_up.is_none() => {
                    Poll::Ready(Event::Request(Request::new(request, respond, Arc::clone(&self.tally))))
                }
                Poll::Ready(Some(Ok(_refused))) => continue,
                Poll::Ready(Some(Err(error))) => {
                    // A client that was told to go, and has no stream, may just close.
                    let is_done = self.draining && !self.connection.has_streams();
                    let end = if is_done { TunnelEnd::Closed } else { TunnelEnd::of(&error) };
                    Poll::Ready(Event::Ended(self.given_up.unwrap_or(end)))
                }
                Poll::Ready(None) => Poll::Ready(Event::Ended(self.given_up.unwrap_or(TunnelEnd::Closed))),
            };
        }
    }

    /// Tells the client that no new stream is taken (GOAWAY). The tunnel ends when its streams have.
    pub fn drain(&mut self) {
        self.draining = true;
        self.connection.graceful_shutdown();
    }

    fn give_up(&mut self, end: TunnelEnd, reason: Reason) {
        self.given_up = Some(end);
        self.connection.abrupt_shutdown(reason);
    }
}

impl<IO> fmt::Debug for ServerTunnel<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTunnel").field("given_up", &self.given_up).finish_non_exhaustive()
    }
}
