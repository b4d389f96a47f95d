//! What the peer of a tunnel says of itself, in the headers of a stream.

use std::fmt::Write as _;

/// What the peer of a tunnel says of a stream. It is authenticated only as far as the peer is: for logs, and never for a decision.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PeerClaims {
    /// The trace that the stream belongs to, and the span of the caller.
    pub trace: Option<TraceIds>,
    /// `NAMESPACE/NAME` of the workload.
    pub workload: Option<Box<str>>,
}

/// Identifiers of W3C Trace Context.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TraceIds {
    /// Of the trace.
    pub trace: [u8; 16],
    /// Of the caller's span.
    pub span: [u8; 8],
}

/// In hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
