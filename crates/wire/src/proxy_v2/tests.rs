//! The bytes of examples worked out by hand from the specification, and a reader of it for everything else.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_example_of_each_family_to_the_byte() {
    let plain = header(address("192.0.2.1:56324"), address("198.51.100.2:443"), None).unwrap();
    let expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\
                     \xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";
    assert_eq!(plain, expected);

    let peer = Peer { spiffe_id: "spiffe://a/b", id_type: PP2_TYPE_SPIFFE_ID, tls_version: "TLSv1.3" };
    let secured = header(address("[2001:db8::1]:1"), address("[2001:db8::2]:2"), Some(peer)).unwrap();
    let expected = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x21"[..],
        &(36 + 3 + 15 + 3 + 12_u16).to_be_bytes(),
        b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01\0\x02",
        b"\x20\x00\x0f\x07\0\0\0\0\x21\x00\x07TLSv1.3",
        b"\xe5\x00\x0cspiffe://a/b",
    ];
    assert_eq!(secured, expected.concat());
}

#[test]
fn mapped_addresses_are_ipv4_and_a_mixture_is_ipv6() {
    let (v4, mapped, v6) = (address("192.0.2.1:1"), address("[::ffff:192.0.2.1]:1"), address("[2001:db8::1]:1"));
    assert_eq!(header(mapped, mapped, None), header(v4, v4, None));
    let mixed = header(v4, v6, None).unwrap();
    assert_eq!(mixed[13], TCP6);
    assert_eq!(mixed[16..32], Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets());
}

#[test]
fn what_does_not_fit_is_no_header() {
    let long = "x".repeat(65_536);
    let peer = Peer { spiffe_id: &long, id_type: PP2_TYPE_SPIFFE_ID, tls_version: "TLSv1.3" };
    assert_eq!(header(address("192.0.2.1:1"), address("192.0.2.1:1"), Some(peer)), None);
    // It fits by itself, but not beside the rest.
    let peer = Peer { spiffe_id: &long[1..], ..peer };
    assert_eq!(header(address("192.0.2.1:1"), address("192.0.2.1:1"), Some(peer)), None);
}

/// What a receiver understands: source, destination, and its TLVs.
fn read(bytes: &[u8]) -> (SocketAddr, SocketAddr, Vec<(u8, Vec<u8>)>) {
    assert_eq!((&bytes[..12], bytes[12]), (&SIGNATURE[..], 0x21));
    assert_eq!(usize::from(u16::from_be_bytes([bytes[14], bytes[15]])), bytes.len() - 16);
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (ends, rest) = match bytes[13] {
        0x11 => {
            let ip = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap());
            ([(ip(16).into(), port(24)), (IpAddr::from(ip(20)), port(26))], &bytes[28..])
        }
        0x21 => {
            let ip = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[at..at + 16]).unwrap());
            ([(ip(16).into(), port(48)), (IpAddr::from(ip(32)), port(50))], &bytes[52..])
        }
        other => panic!("{other:#x}"),
    };
    (ends[0].into(), ends[1].into(), tlvs(rest))
}

fn tlvs(mut rest: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let [kind, high, low, more @ ..] = rest {
        let (value, behind) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        found.push((*kind, value.to_vec()));
        rest = behind;
    }
    assert!(rest.is_empty());
    found
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<Ipv4Addr>().prop_map(IpAddr::from);
    let mapped = any::<Ipv4Addr>().prop_map(|ip| ip.to_ipv6_mapped().into());
    let v6 = any::<Ipv6Addr>().prop_map(IpAddr::from);
    (prop_oneof![v4, mapped, v6], any::<u16>()).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn a_receiver_reads_what_was_written(
        source in any_address(),
        destination in any_address(),
        id in proptest::option::of("spiffe://[a-z]{1,20}/[ -~]{0,2000}"),
        id_type in prop_oneof![Just(PP2_TYPE_SPIFFE_ID), Just(PP2_TYPE_ZTUNNEL_ID)],
    ) {
        let peer = id.as_deref().map(|spiffe_id| Peer { spiffe_id, id_type, tls_version: "TLSv1.2" });
        let (from, to, found) = read(&header(source, destination, peer).unwrap());
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        prop_assert_eq!((canonical(from), canonical(to)), (canonical(source), canonical(destination)));
        match id {
            None => prop_assert!(found.is_empty()),
            Some(id) => {
                let (ssl, spiffe) = (&found[0], &found[1]);
                prop_assert_eq!((found.len(), ssl.0, spiffe), (2, 0x20, &(id_type, id.into_bytes())));
                prop_assert_eq!(&ssl.1[..5], &[7, 0, 0, 0, 0]);
                prop_assert_eq!(tlvs(&ssl.1[5..]), [(0x21, b"TLSv1.2".to_vec())]);
            }
        }
    }
}
