//! What counts as one client before it has proven an identity.

use std::net::{IpAddr, Ipv6Addr};

/// Clients that share a limit on sources: one IPv4 address, or one IPv6 network of 64 bits, within which a client chooses its
/// address freely.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ClientSource(IpAddr);

impl ClientSource {
    /// The source that an address belongs to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }

    /// The IPv4 address, or the first address of the IPv6 network.
    #[must_use]
    pub const fn address(self) -> IpAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source_and_ipv4_addresses_are_not() {
        let of = |text: &str| ClientSource::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
