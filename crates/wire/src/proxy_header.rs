//! Reads the header of PROXY protocol version 1 or 2 (haproxy's `proxy-protocol.txt`), with which a load balancer says whose
//! connection it relays.
//!
//! Anybody can send such a header, so it may be read only where the sender is known to be a load balancer; see [`proxy_v2`] for
//! the other direction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::crc32c::crc32c;
use crate::proxy_v2::{self, SIGNATURE, TCP4, TCP6};

/// The longest header of version 1, its line end included: the specification's own bound.
pub const MAX_V1_LEN: usize = 107;
/// The longest header of version 2 that is read. Its length field allows 65,551 bytes; real ones have a few hundred.
pub const MAX_V2_LEN: usize = FIXED_LEN + 4096;

/// What all headers of version 1 begin with.
const V1: &[u8] = b"PROXY ";
/// Signature, version and command, family, length.
const FIXED_LEN: usize = 16;
/// A checksum over the whole header.
const PP2_TYPE_CRC32C: u8 = 0x03;

/// A header that was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProxyHeader {
    /// How many bytes it has; what is behind them is the client's.
    pub len: usize,
    /// Whose connection it is.
    pub origin: Origin,
}

/// Whose connection a load balancer relays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// A client's. IPv4-mapped addresses are given as IPv4.
    Client {
        /// The client's own address.
        source: SocketAddr,
        /// The address that it has dialled.
        destination: SocketAddr,
    },
    /// The load balancer's own, such as a health check (`LOCAL`), or one of which it knows no addresses (`UNKNOWN`).
    Balancer,
}

/// Why the first bytes are no header that can be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProxyHeaderError {
    /// They are something else.
    #[error("the first bytes are no PROXY header")]
    NoHeader,
    /// It is longer than what is read.
    #[error("the header is too long; at most {MAX_V1_LEN} bytes are read of version 1, and {MAX_V2_LEN} of version 2")]
    TooLong,
    /// A header of version 1 is not written as the specification says.
    #[error("the header of version 1 is malformed")]
    V1,
    /// Another version than 1 and 2.
    #[error("the header is of version {0}; 1 and 2 are read")]
    Version(u8),
    /// An unknown command.
    #[error("the header has the unknown command {0}")]
    Command(u8),
    /// Addresses of another kind than TCP over IPv4 or IPv6.
    #[error(
        "the header is for a connection of kind {0:#04x}, which is neither TCP over IPv4 (0x11) nor over IPv6 (0x21)"
    )]
    Family(u8),
    /// Too short for its addresses.
    #[error("the header is too short for its addresses")]
    Addresses,
    /// A type-length-value field does not end where the header ends.
    #[error("a field of the header is longer than the header")]
    Field,
    /// The checksum is wrong.
    #[error("the checksum (CRC32C) of the header is wrong")]
    Checksum,
}

impl ProxyHeaderError {
    /// The stable class.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::NoHeader => "no-header",
            Self::TooLong => "too-long",
            Self::V1 => "malformed",
            Self::Version(_) => "version",
            Self::Command(_) => "command",
            Self::Family(_) => "family",
            Self::Addresses => "addresses",
            Self::Field => "field",
            Self::Checksum => "checksum",
        }
    }
}

/// Reads the header from the bytes that have come so far; `None` while more are needed. An error is given as soon as no
/// further byte could make a header of them, so a caller never holds more than [`MAX_V2_LEN`] bytes.
///
/// # Errors
/// Why they are no header.
pub fn decode(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    match bytes.first() {
        None => Ok(None),
        Some(first) if V1.first() == Some(first) => decode_v1(bytes),
        Some(_) => decode_v2(bytes),
    }
}

/// Whether all bytes agree with the beginning of `expected`.
fn begins(bytes: &[u8], expected: &[u8]) -> bool {
    bytes.iter().zip(expected).all(|(byte, expected)| byte == expected)
}

fn decode_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if !begins(bytes, V1) {
        return Err(ProxyHeaderError::NoHeader);
    }
    let line = bytes.get(..MAX_V1_LEN).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        // A line end in another form would make the next bytes part of the header.
        let (last, before) = line.split_last().ok_or(ProxyHeaderError::V1)?;
        let cut = before.contains(&b'\r') || before.contains(&b'\n') || *last == b'\n';
        return match cut {
            true => Err(ProxyHeaderError::V1),
            false if line.len() == MAX_V1_LEN => Err(ProxyHeaderError::TooLong),
            false => Ok(None),
        };
    };
    let fields = line.get(V1.len()..end).and_then(|fields| std::str::from_utf8(fields).ok());
    let origin = fields.and_then(v1_origin).ok_or(ProxyHeaderError::V1)?;
    Ok(Some(ProxyHeader { len: end + 2, origin }))
}

/// The fields between `PROXY ` and the line end.
fn v1_origin(fields: &str) -> Option<Origin> {
    if fields.contains(['\r', '\n']) {
        return None;
    }
    let (family, rest) = fields.split_once(' ').unwrap_or((fields, ""));
    if family == "UNKNOWN" {
        // Whatever follows is to be ignored.
        return Some(Origin::Balancer);
    }
    let fields: Vec<&str> = rest.split(' ').collect();
    let [source, destination, source_port, destination_port] = *fields.as_slice() else { return None };
    let ip = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => None,
    };
    Some(client(ip(source)?, port(source_port)?, ip(destination)?, port(destination_port)?))
}

/// Decimal digits without sign or leading zero.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn client(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Origin {
    Origin::Client {
        source: SocketAddr::new(source.to_canonical(), source_port),
        destination: SocketAddr::new(destination.to_canonical(), destination_port),
    }
}

fn decode_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyHeaderError> {
    if !begins(bytes, &SIGNATURE) {
        return Err(ProxyHeaderError::NoHeader);
    }
    let behind = bytes.get(SIGNATURE.len()..).unwrap_or_default();
    let relayed = match behind.first() {
        None => return Ok(None),
        Some(&proxy_v2::VERSION_2_PROXY) => true,
        Some(0x20) => false,
        Some(byte) if byte >> 4 == 2 => return Err(ProxyHeaderError::Command(byte & 0xf)),
        Some(byte) => return Err(ProxyHeaderError::Version(byte >> 4)),
    };
    let Some(&[_, family, high, low]) = behind.get(..4) else { return Ok(None) };
    let len = FIXED_LEN + usize::from(u16::from_be_bytes([high, low]));
    if len > MAX_V2_LEN {
        return Err(ProxyHeaderError::TooLong);
    }
    let Some(header) = bytes.get(..len) else { return Ok(None) };
    let body = header.get(FIXED_LEN..).unwrap_or_default();
    let (origin, fields) = match (relayed, family) {
        // What the addresses and fields of LOCAL hold is to be ignored.
        (false, _) => return Ok(Some(ProxyHeader { len, origin: Origin::Balancer })),
        (true, 0) => (Origin::Balancer, body),
        (true, TCP4) => v4_addresses(body)?,
        (true, TCP6) => v6_addresses(body)?,
        (true, family) => return Err(ProxyHeaderError::Family(family)),
    };
    check_fields(header, fields)?;
    Ok(Some(ProxyHeader { len, origin }))
}

fn v4_addresses(body: &[u8]) -> Result<(Origin, &[u8]), ProxyHeaderError> {
    let (source, rest) = body.split_first_chunk::<4>().ok_or(ProxyHeaderError::Addresses)?;
    let (destination, rest) = rest.split_first_chunk::<4>().ok_or(ProxyHeaderError::Addresses)?;
    with_ports(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), rest)
}

fn v6_addresses(body: &[u8]) -> Result<(Origin, &[u8]), ProxyHeaderError> {
    let (source, rest) = body.split_first_chunk::<16>().ok_or(ProxyHeaderError::Addresses)?;
    let (destination, rest) = rest.split_first_chunk::<16>().ok_or(ProxyHeaderError::Addresses)?;
    with_ports(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), rest)
}

fn with_ports(source: IpAddr, destination: IpAddr, rest: &[u8]) -> Result<(Origin, &[u8]), ProxyHeaderError> {
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or(ProxyHeaderError::Addresses)?;
    let (destination_port, rest) = rest.split_first_chunk::<2>().ok_or(ProxyHeaderError::Addresses)?;
    let (source_port, destination_port) = (u16::from_be_bytes(*source_port), u16::from_be_bytes(*destination_port));
    Ok((client(source, source_port, destination, destination_port), rest))
}

/// Skips the fields behind the addresses, and verifies the checksum if there is one.
fn check_fields(header: &[u8], fields: &[u8]) -> Result<(), ProxyHeaderError> {
    let mut rest = fields;
    while let Some((kind, behind)) = rest.split_first() {
        let (len, behind) = behind.split_first_chunk::<2>().ok_or(ProxyHeaderError::Field)?;
        let (value, behind) =
            behind.split_at_checked(usize::from(u16::from_be_bytes(*len))).ok_or(ProxyHeaderError::Field)?;
        if *kind == PP2_TYPE_CRC32C {
            let sum: &[u8; 4] = value.try_into().map_err(|_| ProxyHeaderError::Checksum)?;
            // It is computed with zeros in its own place.
            let before = header.len() - behind.len() - value.len();
            let parts = [header.get(..before).unwrap_or_default(), &[0; 4], behind];
            if crc32c(parts) != u32::from_be_bytes(*sum) {
                return Err(ProxyHeaderError::Checksum);
            }
        }
        rest = behind;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
