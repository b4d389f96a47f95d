//! An address range.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address range such as `10.0.0.0/8`; a bare address is a range of one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Parses `10.0.0.0/8`, `2001:db8::/32` or a bare address. Bits behind the prefix must be zero, so that a typo in
    /// either part is noticed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let cidr = Self::parse_unchecked(text)?;
        (bits(cidr.network) == cidr.mask(cidr.network)).then_some(cidr)
    }

    /// As Istio reads `ipBlocks`: bits behind the prefix are dropped, and an IPv4-mapped IPv6 range is an IPv4 range.
    #[must_use]
    pub fn parse_lenient(text: &str) -> Option<Self> {
        let Self { network, prefix } = Self::parse_unchecked(text)?;
        let mapped = match network {
            // A wider range of mapped addresses would never match one, since they are compared as IPv4.
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => Some((v4, prefix.checked_sub(96)?)),
                None => None,
            },
            IpAddr::V4(_) => None,
        };
        let cidr = mapped.map_or(Self { network, prefix }, |(v4, prefix)| Self { network: v4.into(), prefix });
        Some(cidr.range_of(cidr.network))
    }

    fn parse_unchecked(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let network: IpAddr = address.parse().ok()?;
        let width = width(network);
        let prefix = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        (prefix <= width).then_some(Self { network, prefix })
    }

    /// Its first address.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits from the left all its addresses share.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the range holds the address. An IPv4-mapped IPv6 address counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && self.mask(address) == bits(self.network)
    }

    /// The range of the same size that holds the address, which must be of the same family.
    #[must_use]
    pub fn range_of(&self, address: IpAddr) -> Self {
        let kept = self.mask(address);
        let network = match address {
            // The mask of an IPv4 address leaves 32 bits at most.
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept).unwrap_or_default().into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Self { network, prefix: self.prefix }
    }

    fn mask(&self, address: IpAddr) -> u128 {
        let host_bits = u32::from(width(address).saturating_sub(self.prefix));
        bits(address).checked_shr(host_bits).and_then(|kept| kept.checked_shl(host_bits)).unwrap_or(0)
    }
}

const fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits() as u128,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        Self::parse(text).ok_or_else(|| CidrError(text.to_owned()))
    }
}

/// A text that is no address range.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CidrError(String);

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an address range such as 10.0.0.0/8 (with no bits behind the prefix) or an address",
            self.0
        )
    }
}

impl std::error::Error for CidrError {}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lenient_form_drops_host_bits_and_maps_to_ipv4() {
        let lenient = |text: &str| Cidr::parse_lenient(text).map(|cidr| cidr.to_string());
        for (text, expected) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("::ffff:10.1.2.3/104", Some("10.0.0.0/8")),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("::/0", Some("::/0")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("::ffff:0:0/90", None),
            ("10.0.0.0/33", None),
            ("10.0.0.0/", None),
            ("10.0.0.0/+8", None),
            ("010.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(lenient(text).as_deref(), expected, "{text}");
        }
        assert!(Cidr::parse("10.1.2.3/8").is_none());
    }
}
