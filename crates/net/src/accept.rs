//! Accepting connections without falling over when the process runs out of something.
//!
//! Out of descriptors or memory, accepting again at once would spin, since the connection is still in the backlog: the next
//! attempt waits, longer each time. A connection that was gone before it was accepted causes no pause.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use crate::addr::ClientAddr;
use crate::socket;

/// The first pause after the process ran out of something.
pub const MIN_BACKOFF: Duration = Duration::from_millis(5);
/// The longest pause.
pub const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection; keepalive is on and Nagle's algorithm off.
    pub stream: TcpStream,
    /// Where it comes from.
    pub client: ClientAddr,
}

/// Why there is no connection this time. The caller counts it and accepts again.
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
}

impl AcceptError {
    /// A short, stable name for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => "exhausted",
            Self::Gone { .. } => "gone",
        }
    }
}

/// One listening socket.
#[derive(Debug)]
pub struct Acceptor {
    listener: TcpListener,
    backoff: Backoff,
}

impl Acceptor {
    /// Registers a non-blocking listener with the current runtime.
    ///
    /// # Errors
    /// If the socket takes no options, or the runtime cannot watch it.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        socket::configure(&listener)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, backoff: Backoff::default() })
    }

    /// The address listened on.
    ///
    /// # Errors
    /// If the socket cannot be asked.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next connection. Cancel safe: no connection is lost when the future is dropped.
    ///
    /// # Errors
    /// [`AcceptError`]: nothing was accepted this time. A persistent failure is followed by a pause, so a plain loop around this
    /// does not spin.
    pub async fn accept(&mut self) -> Result<Accepted, AcceptError> {
        self.backoff.wait().await;
        match self.listener.accept().await {
            Ok((stream, address)) => {
                self.backoff.reset();
                Ok(Accepted { stream, client: ClientAddr::new(address) })
            }
            Err(source) if is_gone(&source) => Err(AcceptError::Gone { source }),
            Err(source) => Err(AcceptError::Exhausted { source, pause: self.backoff.increase() }),
        }
    }
}

/// Errors of the one connection, not of this process. accept(2) asks to treat pending network errors of the new socket like
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
        let pause = self.last.map_or(MIN_BACKOFF, |last| (last * 2).min(MAX_BACKOFF));
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
