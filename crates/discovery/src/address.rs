//! The address of an admin server.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The port of `admin.listen`, unless an address names another one: Istio's.
pub const DEFAULT_PORT: u16 = 15000;
/// The usual `admin.socket`.
pub const DEFAULT_SOCKET: &str = "/run/portcullis/admin.sock";

/// Where an admin server listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum AdminAddress {
    /// `HOST:PORT`; an IPv6 address is in brackets.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why a text is not the address of an admin server.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AddressError {
    /// Nothing, or `unix:` without a path.
    #[error("it is empty; write HOST:PORT, http://HOST:PORT or unix:PATH")]
    Empty,
    /// HTTPS.
    #[error("the admin server speaks plain HTTP; write http://HOST:PORT")]
    Https,
    /// A URL with more than an address.
    #[error("only the address of the admin server belongs here, without a path, user or query: http://HOST:PORT")]
    MoreThanAddress,
    /// Not a host.
    #[error("{0:?} is not a host; write HOST:PORT, [IPV6]:PORT, http://HOST:PORT or unix:PATH")]
    Host(String),
    /// Not a port.
    #[error("{0:?} is not a port from 1 to 65535")]
    Port(String),
}

impl AdminAddress {
    /// Parses `HOST[:PORT]`, `http://HOST[:PORT][/]` or `unix:PATH`.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///run/x` is how others write it.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(AddressError::Empty) } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with("https://") {
            return Err(AddressError::Https);
        }
        let authority = match text.strip_prefix("http://") {
            Some(rest) => rest.strip_suffix('/').unwrap_or(rest),
            None => text,
        };
        if authority.is_empty() {
            return Err(AddressError::Empty);
        }
        if authority.contains(['/', '?', '#', '@']) {
            return Err(AddressError::MoreThanAddress);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self::tcp(host, port))
    }

    /// A host, or an IP address, and a port.
    #[must_use]
    pub fn tcp(host: &str, port: u16) -> Self {
        let is_v6 = host.parse::<Ipv6Addr>().is_ok();
        Self::Tcp(if is_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }

    /// What `Host` says: a Unix socket has no name, and `localhost` is one that every admin server knows.
    pub(crate) fn authority(&self) -> &str {
        match self {
            Self::Tcp(authority) => authority,
            Self::Unix(_) => "localhost",
        }
    }
}

impl From<SocketAddr> for AdminAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.to_string())
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Host and port of an authority; the default port if it names none.
fn split_port(authority: &str) -> Result<(&str, u16), AddressError> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| AddressError::Host(authority.to_owned()))?;
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(AddressError::Host(host.to_owned()));
        }
        let port = match rest.strip_prefix(':') {
            Some(port) => parse_port(port)?,
            None if rest.is_empty() => DEFAULT_PORT,
            None => return Err(AddressError::Host(authority.to_owned())),
        };
        return Ok((host, port));
    }
    // A bare IPv6 address has no port.
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, DEFAULT_PORT));
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, parse_port(port)?),
        None => (authority, DEFAULT_PORT),
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(AddressError::Host(host.to_owned()));
    }
    Ok((host, port))
}

/// A port from 1 on, in digits alone.
pub(crate) fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(AddressError::Port(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_in_each_of_their_forms() {
        let read = |text| AdminAddress::parse(text).map(|address| address.to_string());
        for (text, shown) in [
            ("127.0.0.1:15000", "127.0.0.1:15000"),
            ("cart", "cart:15000"),
            ("http://cart:1/", "cart:1"),
            ("http://cart", "cart:15000"),
            ("[::1]:1", "[::1]:1"),
            ("[::1]", "[::1]:15000"),
            ("::1", "[::1]:15000"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("unix:///run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        use AddressError::{Empty, Host, Https, MoreThanAddress, Port};
        for (text, error) in [
            ("", Empty),
            ("unix:", Empty),
            ("http://", Empty),
            ("https://cart", Https),
            ("http://cart/certs", MoreThanAddress),
            ("user@cart", MoreThanAddress),
            ("cart:0", Port("0".to_owned())),
            ("cart:http", Port("http".to_owned())),
            ("cart:+1", Port("+1".to_owned())),
            ("cart:", Port(String::new())),
            ("[::1", Host("[::1".to_owned())),
            ("[cart]:1", Host("cart".to_owned())),
            ("a b", Host("a b".to_owned())),
            ("a\r\nX: y", Port("\u{20}y".to_owned())),
        ] {
            assert_eq!(AdminAddress::parse(text), Err(error), "{text:?}");
        }
    }
}
