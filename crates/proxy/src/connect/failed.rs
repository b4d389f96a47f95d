//! Why an endpoint was not reached, and whether another one may be.

use portcullis_telemetry::{Direction, Ending};
use portcullis_tls::{HandshakeError, HandshakeFault};

use crate::outcome;

/// Whether another endpoint may be tried after a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// The endpoint did not answer, or went away.
    Allowed,
    /// It took too long: there is no time left, but it counts against the endpoint.
    TooLate,
    /// It is what policy or a certificate says, which another endpoint must not hide.
    Never,
}

/// Why one attempt failed.
pub(super) struct Failed {
    pub(super) ending: Ending,
    pub(super) next: Next,
}

impl From<Ending> for Failed {
    fn from(ending: Ending) -> Self {
        Self { ending, next: Next::Never }
    }
}

/// The endpoint went away, which another one may not; everything else is about trust.
pub(super) fn handshake_failed(error: &HandshakeError) -> Failed {
    let next = match error.fault() {
        HandshakeFault::PeerClosed | HandshakeFault::Reset | HandshakeFault::Io => Next::Allowed,
        _ => Next::Never,
    };
    Failed { ending: outcome::handshake(error, Direction::Outbound), next }
}
