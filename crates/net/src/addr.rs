//! The addresses of one connection, each a type of its own so that they cannot be mixed up.
//!
//! All are canonical: an IPv4 address that a dual-stack socket reports as `::ffff:a.b.c.d` is the IPv4 address, so that
//! rules, logs and loop checks see one form.

use std::fmt;
use std::net::SocketAddr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
