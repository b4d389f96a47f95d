//! What a handshake negotiated, in the words of logs.

use rustls::{CommonState, ProtocolVersion};

/// What a handshake negotiated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Negotiated {
    /// `TLSv1.3` or `TLSv1.2`.
    pub tls_version: &'static str,
    /// The cipher suite by its IANA name.
    pub cipher: &'static str,
    /// The key exchange group, such as `X25519MLKEM768`.
    pub group: &'static str,
}

impl Negotiated {
    pub(crate) fn of(state: &CommonState) -> Self {
        let suite = state.negotiated_cipher_suite();
        Self {
            tls_version: match state.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
            cipher: suite.and_then(|suite| suite.suite().as_str()).map_or("unknown", iana_name),
            group: state.negotiated_key_exchange_group().and_then(|group| group.name().as_str()).unwrap_or("unknown"),
        }
    }
}

/// rustls writes `TLS13_` where the registry (and every other proxy's log) has `TLS_`.
fn iana_name(name: &'static str) -> &'static str {
    match name {
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}
