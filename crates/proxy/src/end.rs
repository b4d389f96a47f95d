//! Why a connection ended, from whatever stage it failed in, as a row of the one table of reasons.
//!
//! Every fault of the layers below is matched here without a catch-all: a new one does not compile until it has a reason.

use std::fmt::Display;
use std::io;

use portcullis_net::{CopyEnd, Side, Stage};
use portcullis_policy::Reason;
use portcullis_telemetry::{Decision, Ending, ResponseFlag};
use portcullis_tls::{HandshakeError, HandshakeFault, Unavailable};

/// An ending for a reason, with details for the log.
pub(crate) fn because(reason: Reason, error: Option<String>) -> Ending {
    let decision = match reason.decision() {
        portcullis_policy::Decision::Allow => Decision::Allow,
        portcullis_policy::Decision::Deny => Decision::Deny,
    };
    Ending { decision, reason: reason.label(), hint: reason.hint(), flag: flag(reason), error }
}

/// What Istio's metrics say of it.
const fn flag(reason: Reason) -> ResponseFlag {
    match reason {
        Reason::PlaintextInStrict
        | Reason::SilentClient
        | Reason::IncompleteHello
        | Reason::MalformedHello
        | Reason::NoRoute
        | Reason::RouteConflict
        | Reason::Loop
        | Reason::NoOriginalDestination
        | Reason::ForeignDestination
        | Reason::NameUnresolved
        | Reason::TooManyConnections
        | Reason::TooManyOnListener
        | Reason::TooManyOfPeer
        | Reason::TooManyHandshakes
        | Reason::PolicyChanged
        | Reason::TrustChanged => ResponseFlag::Deny,
        Reason::HandshakeTimeout
        | Reason::NoCertificate
        | Reason::UnknownCa
        | Reason::Expired
        | Reason::NotYetValid
        | Reason::BadCertificate
        | Reason::TdMismatch
        | Reason::IdMismatch
        | Reason::Protocol
        | Reason::PeerAlert
        | Reason::PeerClosed
        | Reason::HandshakeReset
        | Reason::HandshakeIo => ResponseFlag::TlsFailure,
        Reason::NoIdentity => ResponseFlag::IdentityError,
        Reason::AppUnreachable | Reason::AppTimeout | Reason::PeerUnreachable | Reason::PeerTimeout => {
            ResponseFlag::Connect
        }
        Reason::ClientGone => ResponseFlag::Abandoned,
        // How an admitted connection ended is no failure of the mesh.
        Reason::IdleTimeout
        | Reason::HalfCloseTimeout
        | Reason::Reset
        | Reason::Truncated
        | Reason::Error
        | Reason::DrainForced
        | Reason::Shutdown
        | Reason::Panic => ResponseFlag::None,
    }
}

/// The forced end of a drain, for a connection that nobody has let through yet.
pub(crate) fn forced_early() -> Ending {
    Ending { decision: Decision::Deny, ..because(Reason::DrainForced, None) }
}

pub(crate) fn no_identity(why: Unavailable) -> Ending {
    because(Reason::NoIdentity, Some(why.to_string()))
}

pub(crate) fn client_gone(error: &io::Error) -> Ending {
    because(Reason::ClientGone, Some(error.to_string()))
}

pub(crate) fn no_original_destination(error: Option<&io::Error>) -> Ending {
    because(Reason::NoOriginalDestination, error.map(ToString::to_string))
}

pub(crate) fn handshake(error: &HandshakeError) -> Ending {
    let reason = match error.fault() {
        HandshakeFault::NoCertificate => Reason::NoCertificate,
        HandshakeFault::UnknownCa => Reason::UnknownCa,
        HandshakeFault::Expired => Reason::Expired,
        HandshakeFault::NotYetValid => Reason::NotYetValid,
        HandshakeFault::BadCertificate => Reason::BadCertificate,
        HandshakeFault::TdMismatch => Reason::TdMismatch,
        HandshakeFault::IdMismatch => Reason::IdMismatch,
        HandshakeFault::Protocol => Reason::Protocol,
        HandshakeFault::PeerClosed => Reason::PeerClosed,
        HandshakeFault::PeerAlert => Reason::PeerAlert,
        HandshakeFault::Reset => Reason::HandshakeReset,
        HandshakeFault::Io => Reason::HandshakeIo,
    };
    because(reason, Some(error.to_string()))
}

/// Whom we dialled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialled {
    /// The local app.
    App,
    /// A destination elsewhere.
    Peer,
}

/// `address` is where we dialled: without it, nobody knows which of two places to look at.
pub(crate) fn unreachable(whom: Dialled, address: impl Display, error: &io::Error) -> Ending {
    let reason = match (whom, error.kind() == io::ErrorKind::TimedOut) {
        (Dialled::App, false) => Reason::AppUnreachable,
        (Dialled::App, true) => Reason::AppTimeout,
        (Dialled::Peer, false) => Reason::PeerUnreachable,
        (Dialled::Peer, true) => Reason::PeerTimeout,
    };
    because(reason, Some(format!("{address}: {error}")))
}

/// How an admitted connection ended.
pub(crate) fn copied(end: CopyEnd) -> Ending {
    match end {
        CopyEnd::Clean => {
            Ending { decision: Decision::Allow, reason: "-", hint: "", flag: ResponseFlag::None, error: None }
        }
        CopyEnd::IdleTimeout => because(Reason::IdleTimeout, None),
        CopyEnd::HalfCloseTimeout => because(Reason::HalfCloseTimeout, None),
        CopyEnd::Reset { by } => because(Reason::Reset, Some(format!("by the {}", name(by)))),
        CopyEnd::Truncated { by } => because(Reason::Truncated, Some(format!("by the {}", name(by)))),
        // In TLS 1.3 a server judges our certificate after our handshake is over, so its refusal shows here.
        CopyEnd::Error { side: Side::Upstream, stage: Stage::Read, kind: io::ErrorKind::InvalidData } => {
            let error = "the server broke off TLS, most often because it refuses our certificate; its own log says why";
            because(Reason::Error, Some(error.to_owned()))
        }
        CopyEnd::Error { side, stage, kind } => {
            because(Reason::Error, Some(format!("{} {}: {kind}", name(side), verb(stage))))
        }
    }
}

const fn name(side: Side) -> &'static str {
    match side {
        Side::Downstream => "client",
        Side::Upstream => "server",
    }
}

const fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "read",
        Stage::Write => "write",
        Stage::Shutdown => "shutdown",
    }
}

#[cfg(test)]
mod tests {
    use portcullis_telemetry::{ConnRecord, Direction};

    use super::*;

    /// Telemetry does not know the table, but what it says by itself has to be in it.
    #[test]
    fn a_record_that_is_dropped_has_a_reason_of_the_table() {
        let metrics = crate::world::tests::metrics();
        drop(ConnRecord::open(&metrics, Direction::Inbound, "127.0.0.1:9".parse().unwrap()));
        let told = format!("reason=\"{}\"", Reason::Shutdown.label());
        assert!(metrics.encode().unwrap().contains(&told));
    }
}
