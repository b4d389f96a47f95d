//! `:authority` of a CONNECT request: which address is meant.

use std::net::SocketAddr;

/// Why an authority is not an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    /// There is none.
    #[error("the request has no :authority")]
    Missing,
    /// It is a host name, or no address at all. This side forwards for itself only, and is no proxy for names.
    #[error(":authority is not IP:port")]
    NotAnAddress,
    /// The port is 0.
    #[error("the port in :authority is 0")]
    NoPort,
}

/// Reads `IP:port`, with brackets around an IPv6 address. An IPv4 address that is written as IPv6 is the IPv4 address.
///
/// # Errors
/// Why it is not an address.
pub fn parse_authority(text: &str) -> Result<SocketAddr, AuthorityError> {
    if text.is_empty() {
        return Err(AuthorityError::Missing);
    }
    let address: SocketAddr = text.parse().map_err(|_| AuthorityError::NotAnAddress)?;
    // A scope is an interface of the peer's host, and means nothing here.
    let scoped = matches!(address, SocketAddr::V6(address) if address.scope_id() != 0);
    if scoped {
        return Err(AuthorityError::NotAnAddress);
    }
    if address.port() == 0 {
        return Err(AuthorityError::NoPort);
    }
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_address_with_a_port_is_one() {
        assert_eq!(parse_authority("10.0.0.7:8080"), Ok("10.0.0.7:8080".parse().unwrap()));
        assert_eq!(parse_authority("[fd00::7]:8080"), Ok("[fd00::7]:8080".parse().unwrap()));
        assert_eq!(parse_authority("[::ffff:10.0.0.7]:80"), Ok("10.0.0.7:80".parse().unwrap()));
        assert_eq!(parse_authority(""), Err(AuthorityError::Missing));
        assert_eq!(parse_authority("10.0.0.7:0"), Err(AuthorityError::NoPort));
        for text in [
            "10.0.0.7",
            "fd00::7:8080",
            "cart.shop:80",
            "10.0.0.7:65536",
            "010.0.0.7:80",
            "10.0.0.7:80/",
            "u@10.0.0.7:80",
            " 10.0.0.7:80",
            "10.0.0.7:+80",
            "[fe80::1%1]:80",
            "[fe80::1%eth0]:80",
            "0x0a.0.0.7:80",
            "10.0.7:80",
        ] {
            assert_eq!(parse_authority(text), Err(AuthorityError::NotAnAddress), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_is_read_as_itself(ip: IpAddr, port in 1..=u16::MAX) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_authority(&address.to_string()), Ok(SocketAddr::new(ip.to_canonical(), port)));
        }

        #[test]
        fn what_is_read_is_canonical_and_no_text_panics(text in "[0-9a-f.:\\[\\]%]{0,24}|\\PC{0,24}") {
            if let Ok(address) = parse_authority(&text) {
                prop_assert!(address.port() != 0);
                prop_assert_eq!(address.ip().to_canonical(), address.ip());
                prop_assert_eq!(parse_authority(&address.to_string()), Ok(address));
            }
        }
    }
}
