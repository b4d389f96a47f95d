//! Why a connection ended: reason label, hint and detail, from whatever stage it failed in.

use std::io;

use portcullis_net::{CopyEnd, Side, Stage};
use portcullis_telemetry::{Decision, Ending};
use portcullis_tls::{HandshakeError, Unavailable};

pub(crate) fn deny(reason: &'static str, hint: &'static str, error: Option<String>) -> Ending {
    Ending { decision: Decision::Deny, reason, hint, error }
}

pub(crate) fn no_identity(why: Unavailable) -> Ending {
    let hint = "this proxy has no valid certificate of its own; see identity.files and /healthz/ready";
    deny("no_identity", hint, Some(why.to_string()))
}

pub(crate) fn handshake(error: &HandshakeError) -> Ending {
    deny(error.fault().label(), handshake_hint(error.fault().label()), Some(error.to_string()))
}

fn handshake_hint(label: &str) -> &'static str {
    match label {
        "no_certificate" => "the peer speaks TLS but presents no certificate: it has no sidecar, or no identity yet",
        "unknown_ca" => "the peer's certificate is from a CA that trustBundle does not hold",
        "expired" | "not_yet_valid" => "renew the peer's certificate, or correct a clock",
        "td_mismatch" => {
            "the peer is of another trust domain; add mesh.trustDomainAliases or mesh.trustBundles if wanted"
        }
        "id_mismatch" => "another workload answers at this address; correct identities, or find out who that is",
        "bad_certificate" => "the peer's certificate is not an X.509-SVID",
        "peer_alert" => "the peer refused; its own log says why",
        _ => "",
    }
}

pub(crate) fn handshake_timeout() -> Ending {
    deny("handshake_timeout", "the handshake was not complete within timeouts.handshake", None)
}

pub(crate) fn client_gone(error: &io::Error) -> Ending {
    deny("client_gone", "", Some(error.to_string()))
}

pub(crate) fn own_port() -> Ending {
    deny("loop", "the destination is a port of this proxy itself", None)
}

pub(crate) fn no_original_destination(error: Option<&io::Error>) -> Ending {
    let hint = "the transparent listener was dialled directly; only redirected connections belong there";
    deny("no_original_destination", hint, error.map(ToString::to_string))
}

/// A dial that failed; `side` is `app` or `peer`.
pub(crate) fn unreachable(to_app: bool, error: &io::Error) -> Ending {
    let timed_out = error.kind() == io::ErrorKind::TimedOut;
    let (reason, hint) = match (to_app, timed_out) {
        (true, false) => ("app_unreachable", "the app does not listen on that address (yet)"),
        (true, true) => ("app_timeout", "the app did not accept within timeouts.connect"),
        (false, false) => ("peer_unreachable", "nothing listens at the destination, or its name does not resolve"),
        (false, true) => ("peer_timeout", "the destination did not accept within timeouts.connect"),
    };
    deny(reason, hint, Some(error.to_string()))
}

/// How an admitted connection ended.
pub(crate) fn copied(end: CopyEnd) -> Ending {
    let detail = match end {
        CopyEnd::Clean => return Ending { decision: Decision::Allow, reason: "-", hint: "", error: None },
        CopyEnd::IdleTimeout | CopyEnd::HalfCloseTimeout => String::new(),
        CopyEnd::Reset { by } | CopyEnd::Truncated { by } => format!("by the {}", name(by)),
        CopyEnd::Error { side, stage, kind } => format!("{} {}: {kind}", name(side), verb(stage)),
    };
    let hint = match end {
        CopyEnd::Truncated { .. } => "TLS ended without close_notify, so what was received may not be the whole",
        CopyEnd::Error { side: Side::Upstream, stage: Stage::Read, kind: io::ErrorKind::InvalidData } => {
            "the peer broke off TLS, most often because it refuses our certificate; its own log says why"
        }
        _ => "",
    };
    let error = Some(detail).filter(|detail| !detail.is_empty());
    Ending { decision: Decision::Allow, reason: end.label(), hint, error }
}

pub(crate) fn forced() -> Ending {
    Ending {
        decision: Decision::Allow,
        reason: "drain_forced",
        hint: "the proxy ended before the connection did",
        error: None,
    }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Downstream => "client",
        Side::Upstream => "server",
    }
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Read => "read",
        Stage::Write => "write",
        Stage::Shutdown => "shutdown",
    }
}
