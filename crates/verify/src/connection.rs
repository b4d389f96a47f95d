//! Dialling, and reading and writing until a moment.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Where to connect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The time that an attempt has, from the dial to its end.
    pub deadline: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("{host} has no address: {error}; check the name, or name an address")]
    Name {
        /// The name.
        host: String,
        /// Why.
        error: io::Error,
    },
    /// No address answers.
    #[error("cannot connect to {address}: {error}; check that the port is published and reachable from here")]
    Dial {
        /// The last address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

impl Target {
    /// The addresses; a look-up that hangs ends with the deadline.
    ///
    /// # Errors
    /// If there is none.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let (sender, receiver) = mpsc::channel();
        let (host, port) = (self.host.clone(), self.port);
        // The system's look-up has no deadline. Its thread ends by itself, or with the process.
        thread::spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            // Nobody may be waiting any more.
            let _late = sender.send(found);
        });
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        let found = receiver.recv_timeout(self.deadline).unwrap_or_else(late);
        let none = || io::Error::new(io::ErrorKind::NotFound, "the answer is empty");
        found
            .and_then(|addresses| if addresses.is_empty() { Err(none()) } else { Ok(addresses) })
            .map_err(|error| ConnectError::Name { host: self.host.clone(), error })
    }

    /// Dials the addresses one after the other.
    pub(crate) fn connect(&self, addresses: &[SocketAddr]) -> Result<Connection, ConnectError> {
        let (begun, end) = (Instant::now(), Instant::now() + self.deadline);
        let mut last = None;
        for address in addresses {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(address, left) {
                Ok(stream) => {
                    let round_trip = begun.elapsed();
                    // Small writes are to leave at once; that this cannot be set changes nothing else.
                    let _as_it_is = stream.set_nodelay(true);
                    return Ok(Connection { stream, begun, end, until: end, round_trip, head: Vec::new() });
                }
                Err(error) => last = Some(ConnectError::Dial { address: *address, error }),
            }
        }
        Err(last.unwrap_or_else(|| {
            let error = io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
            ConnectError::Name { host: self.host.clone(), error }
        }))
    }
}

/// How many of the first bytes are kept.
const HEAD: usize = 1024;

/// A connection that is read until a moment.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    begun: Instant,
    end: Instant,
    until: Instant,
    /// How long the dial took.
    pub(crate) round_trip: Duration,
    /// The first bytes that came.
    pub(crate) head: Vec<u8>,
}

impl Connection {
    /// Reads end now plus this, and never after the deadline.
    pub(crate) fn wait(&mut self, time: Duration) {
        self.until = (Instant::now() + time).min(self.end);
    }

    /// Reads end with the deadline.
    pub(crate) fn wait_to_the_end(&mut self) {
        self.until = self.end;
    }

    /// Whether the deadline has passed.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// A third of the time: how long an answer is waited for before our direction is ended.
    pub(crate) fn third(&self) -> Duration {
        self.end.saturating_duration_since(self.begun) / 3
    }

    /// Ends our direction.
    pub(crate) fn half_close(&self) {
        // If the server has closed it already, reading says so.
        let _gone = self.stream.shutdown(Shutdown::Write);
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let count = self.stream.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })?;
        let kept = count.min(HEAD.saturating_sub(self.head.len()));
        self.head.extend_from_slice(buffer.get(..kept).unwrap_or_default());
        Ok(count)
    }
}

impl Write for Connection {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_write_timeout(Some(left))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
