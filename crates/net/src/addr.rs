//! The addresses of one connection, each a type of its own so that they cannot be mixed up.
//!
//! All are canonical: an IPv4 address that a dual-stack socket reports as `::ffff:a.b.c.d` is the IPv4 address, so that
//! rules, logs and loop checks see one form.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// Where a client connected from.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientAddr(SocketAddr);

/// Where a client wanted to go, before the kernel redirected it to us.
///
/// For a connection that was not redirected it is our own address, or absent: the caller must compare it with the
/// proxy's listeners before dialling it, or the proxy calls itself.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OrigDst(SocketAddr);

impl ClientAddr {
    /// The address in canonical form.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(canonical(address))
    }

    /// The address itself.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl OrigDst {
    /// The address in canonical form.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(canonical(address))
    }

    /// The address itself.
    #[must_use]
    pub const fn get(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for OrigDst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether an address is one of this host's own, as this network namespace sees it, so that a dial stays here.
///
/// The kernel is asked, since addresses come and go: a datagram socket can be bound to an address of its own only (unless
/// `ip_nonlocal_bind` says otherwise). Nothing is sent. Which source it would choose for a dial there tells less: for the
/// second address of a network that is the first one.
///
/// # Errors
/// If the kernel gives no answer, as without descriptors. What follows from that is the caller's to say.
pub fn is_own_address(address: SocketAddr) -> io::Result<bool> {
    let mut there = canonical(address);
    if there.ip().is_loopback() || there.ip().is_unspecified() {
        return Ok(true);
    }
    there.set_port(0);
    match UdpSocket::bind(there) {
        Ok(_bound) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_distinguished_from_others() {
        for own in ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(is_own_address(SocketAddr::new(own.parse().unwrap(), 80)).unwrap(), "{own}");
        }
        // Reserved for documentation: no host has them.
        for other in ["192.0.2.77", "2001:db8::77"] {
            assert!(!is_own_address(SocketAddr::new(other.parse().unwrap(), 80)).unwrap(), "{other}");
        }
        // Where there is any route out, the address used for it is ours, and no loopback address.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.77:9").is_ok() {
            let own = socket.local_addr().unwrap().ip();
            assert!(is_own_address(SocketAddr::new(own, 80)).unwrap(), "{own}");
        }
    }

    #[test]
    fn mapped_addresses_become_ipv4_and_others_stay() {
        let new = |text: &str| ClientAddr::new(text.parse().unwrap()).to_string();
        assert_eq!(new("[::ffff:10.1.2.3]:80"), "10.1.2.3:80");
        assert_eq!(new("10.1.2.3:80"), "10.1.2.3:80");
        assert_eq!(new("[2001:db8::1]:80"), "[2001:db8::1]:80");
        assert_eq!(new("[::1]:80"), "[::1]:80");
        assert_eq!(OrigDst::new("[::ffff:10.1.2.3]:80".parse().unwrap()).get(), "10.1.2.3:80".parse().unwrap());
    }

    #[test]
    fn an_ipv6_scope_survives() {
        let scoped = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse().unwrap(), 80, 0, 3));
        assert_eq!(ClientAddr::new(scoped).get(), scoped);
    }
}
