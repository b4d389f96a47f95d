//! The header of PROXY protocol version 2 (haproxy's `proxy-protocol.txt`), which informs the app about its client.
//!
//! Written only: what a client sends is payload, whatever it looks like. The header of a load balancer is read by
//! [`proxy_header`](crate::proxy_header). Constants are named as in the specification.

use std::net::{IpAddr, SocketAddr};

/// The first 12 bytes of every header of version 2.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 and the command PROXY: the connection is relayed.
pub const VERSION_2_PROXY: u8 = 0x21;
/// TCP over IPv4.
pub const TCP4: u8 = 0x11;
/// TCP over IPv6.
pub const TCP6: u8 = 0x21;
/// How the client's side is secured.
pub const PP2_TYPE_SSL: u8 = 0x20;
/// In [`PP2_TYPE_SSL`]: the version, such as `TLSv1.3`.
pub const PP2_SUBTYPE_SSL_VERSION: u8 = 0x21;
/// In the first byte of [`PP2_TYPE_SSL`]: the client spoke TLS.
pub const PP2_CLIENT_SSL: u8 = 0x01;
/// It presented a certificate on this connection.
pub const PP2_CLIENT_CERT_CONN: u8 = 0x02;
/// It presented a certificate in this session; each connection is one session.
pub const PP2_CLIENT_CERT_SESS: u8 = 0x04;
/// Our own, of the range for applications (0xE0-0xEF): the peer's SPIFFE ID in ASCII. Cloud providers use 0xE0, 0xEA
/// and 0xEE.
pub const PP2_TYPE_SPIFFE_ID: u8 = 0xE5;
/// What ztunnel of Istio's ambient mesh writes the same as.
pub const PP2_TYPE_ZTUNNEL_ID: u8 = 0xD0;

/// The value of `verify` for a certificate that was verified; any other says that it was not.
const VERIFIED: u32 = 0;

/// A peer that was authenticated by its certificate.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'p> {
    /// Its SPIFFE ID.
    pub spiffe_id: &'p str,
    /// The type of the TLV with it: [`PP2_TYPE_SPIFFE_ID`] or [`PP2_TYPE_ZTUNNEL_ID`].
    pub id_type: u8,
    /// `TLSv1.3` or `TLSv1.2`.
    pub tls_version: &'p str,
}

/// Encodes the header. Without a peer it contains no identity. `None` if a text is too long for its length field, which no
/// SPIFFE ID is.
#[must_use]
pub fn header(source: SocketAddr, destination: SocketAddr, peer: Option<Peer<'_>>) -> Option<Vec<u8>> {
    let (family, mut rest) = addresses(source, destination);
    if let Some(Peer { spiffe_id, id_type, tls_version }) = peer {
        let mut ssl = vec![PP2_CLIENT_SSL | PP2_CLIENT_CERT_CONN | PP2_CLIENT_CERT_SESS];
        ssl.extend(VERIFIED.to_be_bytes());
        tlv(&mut ssl, PP2_SUBTYPE_SSL_VERSION, tls_version.as_bytes())?;
        tlv(&mut rest, PP2_TYPE_SSL, &ssl)?;
        tlv(&mut rest, id_type, spiffe_id.as_bytes())?;
    }
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_2_PROXY, family]);
    header.extend(u16::try_from(rest.len()).ok()?.to_be_bytes());
    header.extend(rest);
    Some(header)
}

/// Source, destination and their ports. An IPv4-mapped address counts as IPv4. If only one of the two is IPv4, both
/// are written as IPv6, since a header has one family.
fn addresses(source: SocketAddr, destination: SocketAddr) -> (u8, Vec<u8>) {
    let mut bytes = Vec::with_capacity(36);
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            TCP4
        }
        (source, destination) => {
            for address in [source, destination] {
                let address = match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                bytes.extend(address.octets());
            }
            TCP6
        }
    };
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    (family, bytes)
}

fn tlv(into: &mut Vec<u8>, kind: u8, value: &[u8]) -> Option<()> {
    into.push(kind);
    into.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
    into.extend(value);
    Some(())
}

#[cfg(test)]
mod tests;
