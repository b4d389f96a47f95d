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

/// All of them, for the documentation.
pub static CONTEXT_HINTS: [&ContextHint; 3] = [&SILENT_IN_STRICT, &SILENT_ON_SERVER_FIRST, &PEER_SPEAKS_PLAINTEXT];

pub(super) fn with_hint(ending: Ending, context: &'static ContextHint) -> Ending {
    debug_assert_eq!(ending.reason, context.reason.label());
    Ending { hint: context.hint, ..ending }
}
