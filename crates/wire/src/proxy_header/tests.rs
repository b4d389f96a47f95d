//! Examples from the specification, headers by our own encoder, and laws for any bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::proxy_v2::{Peer, header};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn from(source: &str, destination: &str) -> Origin {
    Origin::Client { source: address(source), destination: address(destination) }
}

fn origin(bytes: &[u8]) -> Origin {
    let read = decode(bytes).unwrap().unwrap();
    assert_eq!(read.len, bytes.len());
    read.origin
}

/// A header of version 2 by hand.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

const V4_BODY: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 4, 1, 0xbb];

#[test]
fn the_examples_of_version_1() {
    assert_eq!(
        origin(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
        from("255.255.255.255:65535", "255.255.255.255:65535")
    );
    let six =
        b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(
        origin(six),
        from("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
    );
    assert_eq!(origin(b"PROXY UNKNOWN\r\n"), Origin::Balancer);
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!((longest.len(), origin(longest)), (MAX_V1_LEN, Origin::Balancer));
    assert_eq!(origin(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 0 443\r\n"), from("192.0.2.1:0", "[::1]:443"));
    let more = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET / HTTP/1.1\r\n";
    assert_eq!(decode(more), Ok(Some(ProxyHeader { len: 45, origin: from("192.0.2.1:56324", "198.51.100.2:443") })));
}

#[test]
fn what_is_written_otherwise_is_malformed() {
    for line in [
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
        "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n",
        "PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n",
        "PROXY TCP4 ::1 ::2 1 2\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n\r\n",
        "PROXY TCP4\r1.2.3.4 5.6.7.8 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY UNKNOWN\rx",
        "PROXY UNKNOWN a\nb\r\n",
    ] {
        assert_eq!(decode(line.as_bytes()), Err(ProxyHeaderError::V1), "{line:?}");
    }
    for other in
        ["GET / HTTP/1.1\r\n", "PROXX", "Proxy TCP4", "PRI * HTTP/2.0\r\n\r\n", "\x16\x03\x01", "\r\n\r\n\0\r\nQUIX"]
    {
        assert_eq!(decode(other.as_bytes()), Err(ProxyHeaderError::NoHeader), "{other:?}");
    }
    let long = format!("PROXY UNKNOWN {}", "x".repeat(93));
    assert_eq!(decode(&long.as_bytes()[..106]), Ok(None));
    assert_eq!(decode(long.as_bytes()), Err(ProxyHeaderError::TooLong));
}

#[test]
fn commands_and_families_of_version_2() {
    let client = from("192.0.2.1:56324", "198.51.100.2:443");
    assert_eq!(origin(&v2(0x21, 0x11, &V4_BODY)), client);
    assert_eq!(origin(&v2(0x21, 0, b"")), Origin::Balancer);
    // LOCAL: the rest is ignored, whatever it is.
    for (family, body) in [(0, &b""[..]), (0x11, &V4_BODY), (0x31, b"x"), (0xff, b"\x03\0\x09")] {
        assert_eq!(origin(&v2(0x20, family, body)), Origin::Balancer);
    }
    for (bytes, error) in [
        (v2(0x22, 0x11, &V4_BODY), ProxyHeaderError::Command(2)),
        (v2(0x11, 0x11, &V4_BODY), ProxyHeaderError::Version(1)),
        (v2(0x31, 0x11, &V4_BODY), ProxyHeaderError::Version(3)),
        (v2(0x21, 0x12, &V4_BODY), ProxyHeaderError::Family(0x12)),
        (v2(0x21, 0x31, &[0; 216]), ProxyHeaderError::Family(0x31)),
        (v2(0x21, 0x11, &V4_BODY[..11]), ProxyHeaderError::Addresses),
        (v2(0x21, 0x21, &[0; 35]), ProxyHeaderError::Addresses),
        (v2(0x21, 0x11, &[&V4_BODY[..], &[4]].concat()), ProxyHeaderError::Field),
        (v2(0x21, 0x11, &[&V4_BODY[..], &[4, 0, 2, 0]].concat()), ProxyHeaderError::Field),
        (v2(0x21, 0x11, &[&V4_BODY[..], &[3, 0, 3, 0, 0, 0]].concat()), ProxyHeaderError::Checksum),
    ] {
        assert_eq!(decode(&bytes), Err(error));
    }
}

#[test]
fn a_header_that_would_be_too_long_is_refused_before_it_comes() {
    let mut bytes = v2(0x21, 0x11, &[]);
    bytes[14..].copy_from_slice(&4096_u16.to_be_bytes());
    assert_eq!(decode(&bytes), Ok(None));
    bytes[14..].copy_from_slice(&4097_u16.to_be_bytes());
    assert_eq!(decode(&bytes), Err(ProxyHeaderError::TooLong));
}

/// A field between others, as haproxy sends it.
fn with_checksum(before: &[u8], after: &[u8]) -> (Vec<u8>, usize) {
    let body = [&V4_BODY[..], before, &[PP2_TYPE_CRC32C, 0, 4, 0, 0, 0, 0], after].concat();
    let mut bytes = v2(0x21, 0x11, &body);
    let at = FIXED_LEN + V4_BODY.len() + before.len() + 3;
    let sum = crc32c([&bytes]);
    bytes[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    (bytes, at)
}

#[test]
fn a_checksum_is_verified() {
    for (before, after) in
        [(&b""[..], &b""[..]), (b"\x04\0\x02ab", b""), (b"", b"\xea\0\x03abc"), (b"\x01\0\0", b"\x04\0\x01x")]
    {
        let (bytes, at) = with_checksum(before, after);
        assert_eq!(origin(&bytes), from("192.0.2.1:56324", "198.51.100.2:443"));
        for changed in [FIXED_LEN, FIXED_LEN + 9, at, at + 3] {
            let mut bad = bytes.clone();
            bad[changed] ^= 1;
            assert_eq!(decode(&bad), Err(ProxyHeaderError::Checksum), "byte {changed}");
        }
    }
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<Ipv4Addr>().prop_map(IpAddr::from);
    let v6 = any::<Ipv6Addr>().prop_map(IpAddr::from);
    (prop_oneof![v4, v6], any::<u16>()).prop_map(SocketAddr::from)
}

fn v1(source: SocketAddr, destination: SocketAddr) -> String {
    let (family, [source_ip, destination_ip]) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ("TCP4", [source.to_string(), destination.to_string()]),
        (source, destination) => {
            let six = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().to_string(),
                IpAddr::V6(ip) => ip.to_string(),
            };
            ("TCP6", [six(source), six(destination)])
        }
    };
    format!("PROXY {family} {source_ip} {destination_ip} {} {}\r\n", source.port(), destination.port())
}

/// Bytes that come near to a header, and any others.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let near_v2 = (
        0x1f_u8..0x23,
        prop_oneof![Just(0_u8), Just(0x11), Just(0x21), any::<u8>()],
        proptest::collection::vec(any::<u8>(), 0..80),
    )
        .prop_map(|(command, family, body)| v2(command, family, &body));
    let near_v1 = "PROXY (TCP4|TCP6|UNKNOWN)( [0-9a-f.:]{1,9}){0,5}\r?\n?".prop_map(String::into_bytes);
    prop_oneof![near_v2, near_v1, proptest::collection::vec(any::<u8>(), 0..40)]
}

proptest! {
    /// Our own encoder is one of the senders.
    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        source in any_address(),
        destination in any_address(),
        id in proptest::option::of("spiffe://[a-z]{1,20}/[ -~]{0,2000}"),
        version_1 in any::<bool>(),
        behind in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let peer = id.as_deref().map(|spiffe_id| Peer { spiffe_id, id_type: 0xE5, tls_version: "TLSv1.3" });
        let bytes = if version_1 { v1(source, destination).into_bytes() } else { header(source, destination, peer).unwrap() };
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let origin = Origin::Client { source: canonical(source), destination: canonical(destination) };
        for cut in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..cut]), Ok(None), "{} bytes", cut);
        }
        let all = [&bytes[..], &behind].concat();
        prop_assert_eq!(decode(&all), Ok(Some(ProxyHeader { len: bytes.len(), origin })));
    }

    /// More bytes never change an answer, and an undecided header is never longer than what may be held.
    #[test]
    fn an_answer_is_final(bytes in any_bytes(), behind in proptest::collection::vec(any::<u8>(), 0..20)) {
        let bytes = [bytes, behind].concat();
        let mut before = Ok(None);
        for cut in 0..=bytes.len() {
            let now = decode(&bytes[..cut]);
            if before != Ok(None) {
                prop_assert_eq!(now, before);
            }
            if let Ok(Some(read)) = now {
                prop_assert!(read.len <= cut);
            }
            before = now;
        }
        if bytes.len() >= MAX_V2_LEN {
            prop_assert_ne!(before, Ok(None));
        }
    }
}
