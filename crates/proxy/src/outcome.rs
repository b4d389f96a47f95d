//! How a connection ends: the outcome table, and the rows that the failures of each stage lead to.
//!
//! Failures of the layers below are matched without a catch-all, here or in the table: a new one does not compile until it
//! has a reason.

mod context;
mod table;

use std::fmt::Display;
use std::io;

use portcullis_net::{CopyEnd, IoOperation, Side};
use portcullis_policy::{Mode, Refusal};
use portcullis_telemetry::{Decision, Direction, Ending};
use portcullis_tls::{HandshakeError, StreamFault, Unavailable};

pub use context::{CONTEXT_HINTS, ContextHint};
pub use table::Reason;

/// The forced end of the shutdown, for a connection that was not admitted yet.
pub(crate) fn forced_before_admission() -> Ending {
    Ending { decision: Decision::Deny, ..Ending::new(Reason::DrainForced, None) }
}

pub(crate) fn no_identity(why: Unavailable) -> Ending {
    Ending::new(Reason::NoIdentity, Some(why.to_string()))
}

pub(crate) fn client_gone(error: &io::Error) -> Ending {
    Ending::new(Reason::ClientGone, Some(error.to_string()))
}

pub(crate) fn no_original_destination(error: Option<&io::Error>) -> Ending {
    Ending::new(Reason::NoOriginalDestination, error.map(ToString::to_string))
}

/// The policy refuses the client's first bytes. `server_first` is whether the port is configured as server-first.
pub(crate) fn refused(refusal: Refusal, mode: Mode, server_first: bool) -> Ending {
    let ending = Ending::new(Reason::from(refusal), None);
    match (refusal, mode) {
        (Refusal::SilentClient, Mode::Strict) => context::with_hint(ending, &context::SILENT_IN_STRICT),
        (Refusal::SilentClient, _) if server_first => context::with_hint(ending, &context::SILENT_ON_SERVER_FIRST),
        _ => ending,
    }
}

/// A handshake failed.
pub(crate) fn handshake(error: &HandshakeError, direction: Direction) -> Ending {
    let ending = Ending::new(Reason::from(error.fault()), Some(error.to_string()));
    if direction == Direction::Outbound && error.is_not_tls() {
        return context::with_hint(ending, &context::PEER_SPEAKS_PLAINTEXT);
    }
    ending
}

/// A handshake with a client outside of the mesh failed.
pub(crate) fn external_client_handshake(error: &HandshakeError) -> Ending {
    let reason = Reason::from(error.fault());
    let ending = Ending::new(reason, Some(error.to_string()));
    match reason {
        Reason::NoCertificate => context::with_hint(ending, &context::NO_CERTIFICATE_AT_GATEWAY),
        Reason::UnknownCa => context::with_hint(ending, &context::UNKNOWN_CA_AT_GATEWAY),
        Reason::BadCertificate => context::with_hint(ending, &context::BAD_CERTIFICATE_AT_GATEWAY),
        Reason::Protocol => context::with_hint(ending, &context::PROTOCOL_AT_GATEWAY),
        _ => ending,
    }
}

/// A client outside of the mesh sent nothing.
pub(crate) fn silent_at_gateway() -> Ending {
    context::with_hint(Ending::new(Reason::SilentClient, None), &context::SILENT_AT_GATEWAY)
}

/// A client outside of the mesh does not speak TLS. `looks_like_header`: it may be a load balancer that is not believed.
pub(crate) fn plaintext_at_gateway(looks_like_header: bool) -> Ending {
    let ending = Ending::new(Reason::PlaintextAtGateway, None);
    if looks_like_header { context::with_hint(ending, &context::HEADER_NOT_BELIEVED) } else { ending }
}

/// What was dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DialTarget {
    /// The local app.
    App,
    /// A destination elsewhere.
    Peer,
}

/// A dial failed. `address` is what was dialled: the log must say which of two addresses to check.
pub(crate) fn unreachable(target: DialTarget, address: impl Display, error: &io::Error) -> Ending {
    let reason = match (target, error.kind() == io::ErrorKind::TimedOut) {
        (DialTarget::App, false) => Reason::AppUnreachable,
        (DialTarget::App, true) => Reason::AppTimeout,
        (DialTarget::Peer, false) => Reason::PeerUnreachable,
        (DialTarget::Peer, true) => Reason::PeerTimeout,
    };
    Ending::new(reason, Some(format!("{address}: {error}")))
}

/// How an admitted connection ended. `tls_fault` is what broke TLS on the side that the end names, if anything did.
pub(crate) fn copied(end: CopyEnd, tls_fault: Option<StreamFault>) -> Ending {
    match end {
        CopyEnd::Clean => Ending::CLEAN,
        CopyEnd::IdleTimeout => Ending::new(Reason::IdleTimeout, None),
        CopyEnd::HalfCloseTimeout => Ending::new(Reason::HalfCloseTimeout, None),
        CopyEnd::Truncated { by } => Ending::new(Reason::Truncated, Some(format!("by the {}", name(by)))),
        // A peer that ends TLS with an alert often resets the connection right behind it. The alert is the cause.
        CopyEnd::Reset { by } => tls_fault
            .and_then(|fault| broken_tls(by, fault))
            .unwrap_or_else(|| Ending::new(Reason::Reset, Some(format!("by the {}", name(by))))),
        CopyEnd::Error { side, operation, kind } => tls_fault
            .and_then(|fault| broken_tls(side, fault))
            .unwrap_or_else(|| Ending::new(Reason::Error, Some(format!("{} {}: {kind}", name(side), verb(operation))))),
    }
}

/// TLS of an open connection broke. `None` for faults that are not about TLS.
fn broken_tls(side: Side, fault: StreamFault) -> Option<Ending> {
    let side = name(side);
    let (reason, error) = match fault {
        StreamFault::PeerAlert(_) => {
            (Reason::TlsAlert, format!("alert {} from the {side}", fault.alert().unwrap_or("other")))
        }
        StreamFault::BadRecord => (Reason::TlsBadRecord, format!("a record from the {side} does not authenticate")),
        StreamFault::Protocol => (Reason::TlsProtocol, format!("the {side} broke the TLS protocol")),
        StreamFault::Truncated | StreamFault::Reset | StreamFault::Io => return None,
    };
    Some(Ending::new(reason, Some(error)))
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Downstream => "client",
        Side::Upstream => "server",
    }
}

const fn verb(operation: IoOperation) -> &'static str {
    match operation {
        IoOperation::Read => "read",
        IoOperation::Write => "write",
        IoOperation::Shutdown => "shutdown",
    }
}

#[cfg(test)]
mod tests;
