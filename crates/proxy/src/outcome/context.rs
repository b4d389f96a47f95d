//! Hints for one context of a reason, where the hint of its row would mislead.

use portcullis_telemetry::Ending;

use super::Reason;

/// A hint that replaces that of a row.
#[derive(Debug)]
pub struct ContextHint {
    /// The reason that it belongs to.
    pub reason: Reason,
    /// When it is given.
    pub when: &'static str,
    /// The hint.
    pub hint: &'static str,
}

/// A sidecar sends its ClientHello at once, so a silent client has none. Configuring the port as server-first would not help:
/// STRICT never lets plaintext pass.
pub(super) static SILENT_IN_STRICT: ContextHint = ContextHint {
    reason: Reason::SilentClient,
    when: "the port is STRICT",
    hint: "the client sent nothing, not even a ClientHello: it has no sidecar; give it one, or set this port to PERMISSIVE in \
           portLevelMtls while you migrate; that a port is server-first makes no difference under STRICT",
};

pub(super) static SILENT_ON_SERVER_FIRST: ContextHint = ContextHint {
    reason: Reason::SilentClient,
    when: "the port is PERMISSIVE and already server-first",
    hint: "neither the client nor the app sent anything within timeouts.handshake; check whether the app answers on this port",
};

pub(super) static PEER_SPEAKS_PLAINTEXT: ContextHint = ContextHint {
    reason: Reason::Protocol,
    when: "outbound, and the answer to our ClientHello is not TLS",
    hint: "the peer's port answers in plaintext: it has no sidecar, or its mode is DISABLE; fix the peer, or make this route \
           plaintext",
};

pub(super) static SILENT_AT_GATEWAY: ContextHint = ContextHint {
    reason: Reason::SilentClient,
    when: "it is a client outside of the mesh, at a gateway listener with tls",
    hint: "the client outside of the mesh connected and sent nothing within timeouts.handshake; a client of TLS speaks first",
};

pub(super) static HEADER_NOT_BELIEVED: ContextHint = ContextHint {
    reason: Reason::PlaintextAtGateway,
    when: "the plaintext is a PROXY header from a source that proxyProtocol.from does not name",
    hint: "a PROXY header came from an address that proxyProtocol.from does not name, so it is not believed; add the address if it \
           is your load balancer",
};

pub(super) static NO_CERTIFICATE_AT_GATEWAY: ContextHint = ContextHint {
    reason: Reason::NoCertificate,
    when: "it is a client outside of the mesh, at a gateway listener with mode MUTUAL",
    hint: "this gateway listener demands a certificate (mode: MUTUAL), and the client presented none",
};

pub(super) static UNKNOWN_CA_AT_GATEWAY: ContextHint = ContextHint {
    reason: Reason::UnknownCa,
    when: "it is a client outside of the mesh, at a gateway listener with mode MUTUAL",
    hint: "the client's certificate is from a CA that clientCa of this gateway listener does not contain",
};

pub(super) static BAD_CERTIFICATE_AT_GATEWAY: ContextHint = ContextHint {
    reason: Reason::BadCertificate,
    when: "it is a client outside of the mesh, at a gateway listener with mode MUTUAL",
    hint: "the client's certificate cannot be used as a client's; `error` says what is wrong with it",
};

pub(super) static PROTOCOL_AT_GATEWAY: ContextHint = ContextHint {
    reason: Reason::Protocol,
    when: "it is a client outside of the mesh, at a gateway listener",
    hint: "the client and this gateway listener share no TLS version, group or suite; see tls.minVersion of the listener",
};

/// All of them, for the documentation.
pub static CONTEXT_HINTS: [&ContextHint; 9] = [
    &SILENT_IN_STRICT,
    &SILENT_ON_SERVER_FIRST,
    &SILENT_AT_GATEWAY,
    &PEER_SPEAKS_PLAINTEXT,
    &HEADER_NOT_BELIEVED,
    &NO_CERTIFICATE_AT_GATEWAY,
    &UNKNOWN_CA_AT_GATEWAY,
    &BAD_CERTIFICATE_AT_GATEWAY,
    &PROTOCOL_AT_GATEWAY,
];

pub(super) fn with_hint(ending: Ending, context: &'static ContextHint) -> Ending {
    debug_assert_eq!(ending.reason, context.reason.label());
    Ending { hint: context.hint, ..ending }
}
