//! Accepting connections without falling over when the process runs out of something.
//!
//! A permit is taken before a connection is, or it would bound nothing. But it is held only while the kernel is asked,
//! never while waiting for a client: every idle listener of every worker would hold one, and a small limit would be used
//! up by listeners that serve nobody. While there is no permit, clients wait in the kernel's backlog, which is bounded
//! too.
//!
//! Out of descriptors or memory, accepting again at once would spin, since the connection is still there: the next
//! attempt waits, longer each time. Connections that were gone before they were accepted cost nothing and no pause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use std::future::poll_fn;
use std::task::Poll;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time::{Instant, sleep_until};

use crate::addr::ClientAddr;
use crate::socket;

/// First pause after the process ran out of something.
pub const MIN_PAUSE: Duration = Duration::from_millis(5);
/// Longest pause.
pub const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A connection that was accepted and counted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; keepalive is on and Nagle's algorithm off.
    pub stream: TcpStream,
    /// Where it comes from.
    pub client: ClientAddr,
    /// Its share of the limit. To be kept until the connection is closed.
    pub permit: OwnedSemaphorePermit,
}

/// Why there is no connection this time. All but `Closed` are to be counted and the call repeated.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Out of descriptors, buffers or memory, or something unknown. The next call waits for `pause` first.
    #[error("cannot accept connections: {source}; trying again in {pause:?}")]
    Exhausted {
        /// What the kernel said.
        source: io::Error,
        /// How long the next call waits.
        pause: Duration,
    },
    /// The client was gone before it was accepted.
    #[error("a connection was gone before it was accepted: {source}")]
    Gone {
        /// What the kernel said.
        source: io::Error,
    },
    /// The permits were closed: nothing is to be accepted any more.
    #[error("the listener is closed")]
    Closed,
}

impl AcceptError {
    /// A short, stable name for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => "exhausted",
            Self::Gone { .. } => "gone",
            Self::Closed => "closed",
        }
    }
}

/// One listening socket, with the limit that its connections count against.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    backoff: Backoff,
}

impl Acceptor {
    /// Registers a non-blocking listener with the runtime it is called in. Several acceptors may share `permits`.
    ///
    /// # Errors
    /// If the runtime cannot watch the socket.
    pub fn new(listener: std::net::TcpListener, permits: Arc<Semaphore>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)?, permits, backoff: Backoff::default() })
    }

    /// The address listened on.
    ///
    /// # Errors
    /// If the socket cannot be asked.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection. May be dropped and called again at any time; no connection is lost.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing was accepted this time. It never fails twice in a row without a pause for the same
    /// persistent reason, so a plain loop around it does not spin.
    pub async fn accept(&mut self) -> Result<Accepted, AcceptError> {
        self.backoff.wait().await;
        let (result, permit) = self.next().await?;
        match result {
            Ok((stream, address)) => {
                self.backoff.reset();
                // An open socket takes these options; one that does not has been closed under us.
                socket::configure(&stream).map_err(|source| AcceptError::Gone { source })?;
                Ok(Accepted { stream, client: ClientAddr::new(address), permit })
            }
            Err(source) if is_gone(&source) => Err(AcceptError::Gone { source }),
            Err(source) => Err(AcceptError::Exhausted { source, pause: self.backoff.increase() }),
        }
    }

    /// What the kernel answers next, and the permit for it.
    async fn next(&self) -> Result<(io::Result<(TcpStream, SocketAddr)>, OwnedSemaphorePermit), AcceptError> {
        let mut held = None;
        loop {
            let answer = poll_fn(|cx| {
                let permit = match held.take() {
                    Some(permit) => Ok(permit),
                    None => Arc::clone(&self.permits).try_acquire_owned(),
                };
                match permit {
                    // While nobody is there, the permit goes back before this returns.
                    Ok(permit) => self.listener.poll_accept(cx).map(|result| Ok((result, permit))),
                    Err(error) => Poll::Ready(Err(error)),
                }
            })
            .await;
            match answer {
                Ok(answer) => return Ok(answer),
                Err(TryAcquireError::NoPermits) => {
                    let permit = Arc::clone(&self.permits).acquire_owned().await;
                    held = Some(permit.map_err(|_closed| AcceptError::Closed)?);
                }
                Err(TryAcquireError::Closed) => return Err(AcceptError::Closed),
            }
        }
    }
}

/// Errors that concern one connection and not us. accept(2) asks to treat pending network errors of the new socket like
/// a client that went away.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(
            Errno::CONNABORTED
                | Errno::CONNRESET
                | Errno::INTR
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NONET
                | Errno::TIMEDOUT
        )
    )
}

/// Pauses that double, up to a bound, until something works again.
#[derive(Debug, Default)]
struct Backoff {
    last: Option<Duration>,
    until: Option<Instant>,
}

impl Backoff {
    fn increase(&mut self) -> Duration {
        let pause = self.last.map_or(MIN_PAUSE, |last| (last * 2).min(MAX_PAUSE));
        self.last = Some(pause);
        self.until = Some(Instant::now() + pause);
        pause
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    async fn wait(&mut self) {
        if let Some(until) = self.until {
            sleep_until(until).await;
            self.until = None;
        }
    }
}

#[cfg(test)]
mod tests;
