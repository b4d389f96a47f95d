//! Binding: one address, one listening socket for each worker thread.
//!
//! The sockets share the address by `SO_REUSEPORT`, so the kernel spreads connections over the workers without a lock.
//! That option has a trap: a second proxy, started by mistake with the same configuration, would join the group and
//! silently take half of the connections. So the first socket is bound without it, which fails if the address is in use,
//! and gets the option only afterwards. It stays bound in between, so no other process can take the address.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel completes for us while we are busy; it caps this at `net.core.somaxconn`.
pub const BACKLOG: i32 = 4096;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error("cannot listen on {address}: the address is in use by another process or another listener")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 need a capability.
    #[error("cannot listen on {address}: permission denied; ports below 1024 need CAP_NET_BIND_SERVICE")]
    PermissionDenied {
        /// The address asked for.
        address: SocketAddr,
    },
    /// No interface has that address, or the host does not do that IP version.
    #[error("cannot listen on {address}: this host has no such address")]
    NotAvailable {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Anything else that the kernel said.
    #[error("cannot listen on {address}: {source}")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ListenError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { address },
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => Self::NotAvailable { address },
            _ => Self::Io { address, source },
        }
    }
}

/// Listens on `address` with one socket for each of `workers`, each to be registered with the runtime of its worker.
/// All are non-blocking.
///
/// With port 0 the kernel chooses one, the same for all. `[::]` takes IPv4 connections as well; every other address only
/// its own.
///
/// # Errors
/// [`ListenError`], which names the address. No socket is left behind then.
pub fn listen(address: SocketAddr, workers: NonZeroUsize) -> Result<Vec<TcpListener>, ListenError> {
    bind_all(address, workers).map_err(|source| ListenError::new(address, source))
}

fn bind_all(address: SocketAddr, workers: NonZeroUsize) -> io::Result<Vec<TcpListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < workers.get() {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&bound)?;
        sockets.push(next);
    }
    // Only now, with the group complete: connections are spread by a hash over its members, and one that joins late
    // would move half-open connections from one socket to another.
    for socket in &sockets {
        socket.listen(BACKLOG)?;
    }
    Ok(sockets.into_iter().map(TcpListener::from).collect())
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that linger in TIME_WAIT do not count as somebody listening.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn workers(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    /// Accepts what waits, without blocking.
    fn drain(listener: &TcpListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn every_worker_gets_a_share_of_one_port() {
        let listeners = listen(any(), workers(3)).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        let _clients: Vec<TcpStream> = (0..90).map(|_| TcpStream::connect(address).unwrap()).collect();
        let shares: Vec<usize> = listeners.iter().map(drain).collect();
        assert_eq!(shares.iter().sum::<usize>(), 90);
        assert!(shares.iter().all(|&share| share > 0), "{shares:?}");
    }

    #[test]
    fn a_port_that_another_group_of_ours_holds_is_in_use() {
        let held = listen(any(), workers(2)).unwrap();
        let address = held[0].local_addr().unwrap();
        let error = listen(address, workers(2)).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        drop(held);
        listen(address, workers(2)).unwrap();
    }

    #[test]
    fn a_port_that_a_plain_listener_holds_is_in_use() {
        let held = TcpListener::bind(any()).unwrap();
        let error = listen(held.local_addr().unwrap(), workers(1)).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
        // Wildcard and specific addresses collide as well.
        let port = held.local_addr().unwrap().port();
        let error = listen(SocketAddr::new("0.0.0.0".parse().unwrap(), port), workers(1)).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    }

    #[test]
    fn a_restart_does_not_wait_for_time_wait() {
        let listeners = listen(any(), workers(1)).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        listeners[0].set_nonblocking(false).unwrap();
        // Our side closes first, so TIME_WAIT stays with our port.
        drop(listeners[0].accept().unwrap());
        drop((client, listeners));
        listen(address, workers(2)).unwrap();
    }

    #[test]
    fn an_address_that_no_interface_has_is_said_so() {
        let error = listen("192.0.2.1:0".parse().unwrap(), workers(1)).unwrap_err();
        assert!(matches!(error, ListenError::NotAvailable { .. }), "{error:?}");
    }

    #[test]
    fn the_ipv6_wildcard_takes_both_families_and_loopback_only_its_own() {
        let both = listen("[::]:0".parse().unwrap(), workers(1)).unwrap();
        let port = both[0].local_addr().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        TcpStream::connect(("::1", port)).unwrap();
        let six = listen("[::1]:0".parse().unwrap(), workers(1)).unwrap();
        assert!(TcpStream::connect(("127.0.0.1", six[0].local_addr().unwrap().port())).is_err());
    }
}
