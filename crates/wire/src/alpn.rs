//! The ALPN names of mesh peers.

/// The names whose presence in a ClientHello's list makes it a mesh hello: one of them, anywhere in the list, compared
/// byte for byte. The set is the one for which Istio's inbound listeners pick the terminating filter chain.
pub const MESH_ALPN: [&[u8]; 5] = [b"istio", b"istio-peer-exchange", b"istio-http/1.0", b"istio-http/1.1", b"istio-h2"];

/// The only name that our client offers. The others announce a protocol above TCP that is not supported here.
pub const CLIENT_ALPN: &[u8] = b"istio";

/// What both sides of an HBONE tunnel offer.
pub const HBONE_ALPN: &[u8] = b"h2";

/// Whether `name` is one of [`MESH_ALPN`].
#[must_use]
pub fn is_mesh_alpn(name: &[u8]) -> bool {
    MESH_ALPN.contains(&name)
}
