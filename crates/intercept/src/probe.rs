//! A probe from inside: connects to an address that no host has, and observes where the connection arrives.
//!
//! Inbound rules only match connections from outside, so they are compared and not probed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_config::Cidr;
use rustix::io::Errno;
use rustix::process::getuid;
use socket2::SockRef;

use crate::capture::{Capture, Outbound, Selection};
use crate::port::Port;

/// A redirected connection stays in this host and arrives at once.
const DEADLINE: Duration = Duration::from_secs(2);
/// Reserved for documentation (RFC 5737, RFC 3849): no host has them, so an answer proves a redirect.
const UNASSIGNED_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(203, 0, 113, 1)];
const UNASSIGNED_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1)];

/// The version of IP that a probe uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The outcome of a probe.
#[derive(Debug)]
pub enum Outcome {
    /// It arrived at the capture port, with its original destination.
    Captured(SocketAddr),
    /// Something listens on the capture port, and something answered for an address that no host has. That is the sidecar,
    /// unless the network outside answers for every address.
    Answered(SocketAddr),
    /// It is refused, as it must be while there is no sidecar and the port cannot be used by the probe.
    NotCaptured(SocketAddr, io::Error),
    /// It arrived at the capture port, but the kernel names another destination: something else translates as well.
    Changed(SocketAddr, Option<SocketAddr>),
    /// This network namespace has no route for this version of IP, so there is nothing to capture.
    NoRoute,
    /// Nothing is captured that could be probed.
    NothingToProbe,
    /// The probe runs as the user whose connections are not captured.
    Exempt,
}

/// Opens a connection that must be captured.
///
/// # Errors
/// If a socket cannot be made.
pub fn outbound(capture: &Capture, version: Version) -> io::Result<Outcome> {
    if getuid().as_raw() == capture.proxy_uid {
        return Ok(Outcome::Exempt);
    }
    let Some((outbound, target)) =
        capture.outbound.as_ref().and_then(|outbound| Some((outbound, target(outbound, version)?)))
    else {
        return Ok(Outcome::NothingToProbe);
    };
    // A redirect of what this host sends goes to loopback.
    let loopback: IpAddr = match version {
        Version::V4 => Ipv4Addr::LOCALHOST.into(),
        Version::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let listener = match TcpListener::bind((loopback, outbound.port.get())) {
        Ok(listener) => Some(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
        Err(error) if no_such_network(&error) => return Ok(Outcome::NoRoute),
        Err(error) => return Err(error),
    };
    // The local routing table is consulted, since a router on the path may report the same error.
    if !has_route(target)? {
        return Ok(Outcome::NoRoute);
    }
    match (TcpStream::connect_timeout(&target, DEADLINE), listener) {
        (Ok(_connected), Some(listener)) => arrived(&listener, target),
        (Ok(_connected), None) => Ok(Outcome::Answered(target)),
        // A sidecar without a route for it resets the captured connection.
        (Err(error), None) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Outcome::Answered(target)),
        (Err(error), _) => Ok(Outcome::NotCaptured(target, error)),
    }
}

/// Connecting a datagram socket looks up the route and sends nothing.
fn has_route(target: SocketAddr) -> io::Result<bool> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    match UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(target)) {
        Ok(()) => Ok(true),
        Err(error) if no_such_network(&error) || error.kind() == io::ErrorKind::HostUnreachable => Ok(false),
        Err(error) => Err(error),
    }
}

fn no_such_network(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NETUNREACH | Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

/// The connection is complete, so it waits to be accepted, unless it went elsewhere.
fn arrived(listener: &TcpListener, target: SocketAddr) -> io::Result<Outcome> {
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        match listener.accept() {
            Ok((stream, _)) => {
                let socket = SockRef::from(&stream);
                let found = if target.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
                let found = found.ok().and_then(|address| address.as_socket());
                return Ok(if found == Some(target) {
                    Outcome::Captured(target)
                } else {
                    Outcome::Changed(target, found)
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::NotCaptured(target, io::Error::other("another host answered for an address that no host has")))
}

/// A destination that the rules capture: an address that no host has, if they capture one.
fn target(outbound: &Outbound, version: Version) -> Option<SocketAddr> {
    let mut addresses: Vec<IpAddr> = match version {
        Version::V4 => UNASSIGNED_V4.map(IpAddr::V4).into(),
        Version::V6 => UNASSIGNED_V6.map(IpAddr::V6).into(),
    };
    if let Selection::Only(ranges) = &outbound.include_ranges {
        addresses
            .extend(ranges.iter().map(Cidr::network).filter(|address| address.is_ipv4() == (version == Version::V4)));
    }
    // The port of the discard service, which does nothing with a connection that arrives by mistake.
    let mut ports: Vec<u16> = (9..=64).collect();
    ports.extend(outbound.include_ports.iter().map(|port| port.get()));
    addresses
        .into_iter()
        .filter(|address| !is_own(*address))
        .flat_map(|address| ports.iter().map(move |port| SocketAddr::new(address, *port)))
        .find(|address| is_captured(outbound, *address))
}

/// Test networks may have the documentation addresses; connections to our own addresses are not captured.
fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn is_captured(outbound: &Outbound, address: SocketAddr) -> bool {
    let has = |ports: &[Port]| ports.iter().any(|port| port.get() == address.port());
    let within = |ranges: &[Cidr]| ranges.iter().any(|range| range.contains(address.ip()));
    let included = match &outbound.include_ranges {
        Selection::All => true,
        Selection::Only(ranges) => has(&outbound.include_ports) || within(ranges),
    };
    included && !has(&outbound.exclude_ports) && !within(&outbound.exclude_ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target_of(change: impl Fn(&mut Outbound), version: Version) -> Option<String> {
        let mut outbound = Capture::istio().outbound.unwrap();
        change(&mut outbound);
        target(&outbound, version).map(|address| address.to_string())
    }

    #[test]
    fn the_probe_goes_where_the_rules_capture() {
        use Version::{V4, V6};
        let range = |text: &str| vec![text.parse::<Cidr>().unwrap()];
        assert_eq!(target_of(|_| (), V4).unwrap(), "192.0.2.1:9");
        assert_eq!(target_of(|_| (), V6).unwrap(), "[2001:db8::1]:9");
        assert_eq!(target_of(|all| all.exclude_ports = vec![Port::new(9).unwrap()], V4).unwrap(), "192.0.2.1:10");
        assert_eq!(target_of(|all| all.exclude_ranges = range("192.0.2.0/24"), V4).unwrap(), "198.51.100.1:9");
        assert_eq!(
            target_of(|all| all.include_ranges = Selection::Only(range("10.0.0.0/8")), V4).unwrap(),
            "10.0.0.0:9"
        );
        assert_eq!(target_of(|all| all.include_ranges = Selection::Only(range("10.0.0.0/8")), V6), None);
        let ports = |all: &mut Outbound| {
            (all.include_ranges, all.include_ports) = (Selection::Only(vec![]), vec![Port::new(443).unwrap()]);
        };
        assert_eq!(target_of(ports, V6).unwrap(), "[2001:db8::1]:443");
        assert_eq!(target_of(|all| all.include_ranges = Selection::Only(vec![]), V4), None);
    }
}
