//! Ports and network interfaces, as rules name them.

use std::fmt;
use std::str::FromStr;

use crate::parse::ParseError;

/// A TCP or UDP port, 1 to 65535.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Port(u16);

impl Port {
    /// `None` for 0, which no connection goes to.
    #[must_use]
    pub const fn new(port: u16) -> Option<Self> {
        if port == 0 { None } else { Some(Self(port)) }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl FromStr for Port {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // `u16::from_str` takes a sign, which no port has.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .and_then(Self::new)
            .ok_or_else(|| ParseError::new(text, "a port between 1 and 65535"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of a network interface. The kernel allows 15 bytes; names that would need quoting are rejected.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Interface(String);

impl Interface {
    /// The kernel's `IFNAMSIZ`, with the byte that ends the name.
    pub(crate) const SIZE: usize = 16;

    /// Loopback.
    pub(crate) fn loopback() -> Self {
        Self("lo".to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@' | b':');
        let sound = !text.is_empty() && text.len() < Self::SIZE && text.bytes().all(allowed);
        sound.then(|| Self(text.to_owned())).ok_or_else(|| {
            ParseError::new(text, "the name of a network interface, at most 15 letters, digits or .-_:@")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_digits_between_1_and_65535() {
        for right in ["1", "80", "65535"] {
            assert_eq!(right.parse::<Port>().unwrap().to_string(), right);
        }
        for wrong in ["", "0", "65536", "+80", "-1", " 80", "http", "0x50"] {
            assert!(wrong.parse::<Port>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_interface_fits_into_the_kernels_field_and_needs_no_quotes() {
        for right in ["eth0", "lo", "br-0a1b2c3d4e5f", "veth1.5"] {
            assert_eq!(right.parse::<Interface>().unwrap().as_str(), right);
        }
        for wrong in ["", "sixteen-letters-", "eth0\"", "eth*", "eth 0", "eth0\n"] {
            assert!(wrong.parse::<Interface>().is_err(), "{wrong}");
        }
    }
}
