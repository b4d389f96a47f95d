//! Accepting connections without falling over when the process runs out of something.
//!
//! Every connection takes a permit. Where there is none left, it is handed out without one, to be refused: a client that is
//! told at once can go elsewhere, one that waits in the backlog for somebody else's connection to end learns nothing.
//!
//! Out of descriptors or memory, accepting again at once would spin, since the connection is still there: the next
//! attempt waits, longer each time. Connections that were gone before they were accepted cost nothing and no pause.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
    /// Its share of the limit, to be kept until the connection is closed. Without one it is over the limit, and is to be
    /// reset at once.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Why there is no connection this time. To be counted, and the call repeated.
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
    /// If the socket takes no options, or the runtime cannot watch it.
    pub fn new(listener: std::net::TcpListener, permits: Arc<Semaphore>) -> io::Result<Self> {
        socket::configure(&listener)?;
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
        match self.listener.accept().await {
            Ok((stream, address)) => {
                self.backoff.reset();
                let permit = Arc::clone(&self.permits).try_acquire_owned().ok();
                Ok(Accepted { stream, client: ClientAddr::new(address), permit })
            }
            Err(source) if is_gone(&source) => Err(AcceptError::Gone { source }),
            Err(source) => Err(AcceptError::Exhausted { source, pause: self.backoff.increase() }),
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
