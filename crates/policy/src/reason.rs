//! Why a connection was refused or ended, in one table.
//!
//! Logs, metrics, `why` and the documentation are all made from it, so that a label means one thing everywhere and every
//! label comes with something to do. Labels are part of the product's stable interface: they are added, never changed.
//! The crates that find out (detection, handshake, copy) know nothing of this table; the proxy maps what they return.

use std::fmt;

/// What was decided about a connection that has this reason.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Decision {
    /// It was let through, and ended otherwise than by a clean end of both sides.
    Allow,
    /// It was refused, or closed by a decision while it was open.
    Deny,
}

impl Decision {
    /// The value of the field and label `decision`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection was refused or ended. A clean end has no reason.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// Plaintext on a STRICT port.
    PlaintextInStrict,
    /// Not one byte before the client's FIN or the deadline.
    SilentClient,
    /// A ClientHello that was never finished.
    IncompleteHello,
    /// A ClientHello whose body does not parse.
    MalformedHello,
    /// The handshake was not over at the deadline.
    HandshakeTimeout,
    /// The peer presented no certificate.
    NoCertificate,
    /// The peer's chain leads to no root of ours.
    UnknownCa,
    /// The peer's chain has expired.
    Expired,
    /// The peer's chain is not valid yet.
    NotYetValid,
    /// The peer's certificate is refused for what it is.
    BadCertificate,
    /// The peer is of a trust domain that is not trusted, or its CA is that of another domain.
    TdMismatch,
    /// Another workload answered than the one that was called.
    IdMismatch,
    /// No common version, group or suite, or no TLS after all.
    Protocol,
    /// The peer refused with an alert.
    PeerAlert,
    /// The peer closed the connection during the handshake.
    PeerClosed,
    /// The connection was reset during the handshake.
    HandshakeReset,
    /// Reading or writing failed otherwise during the handshake.
    HandshakeIo,
    /// This proxy has no certificate of its own to show.
    NoIdentity,
    /// The client went away before anything was decided.
    ClientGone,
    /// The app could not be dialled.
    AppUnreachable,
    /// The app did not accept in time.
    AppTimeout,
    /// The destination could not be dialled.
    PeerUnreachable,
    /// The destination did not accept in time.
    PeerTimeout,
    /// The destination is this proxy itself.
    Loop,
    /// A connection to a transparent listener that was not redirected there.
    NoOriginalDestination,
    /// A captured connection for an address that is not this host's.
    ForeignDestination,
    /// No route names the destination, and `outbound.otherwise` is `refuse`.
    NoRoute,
    /// No route names the destination, but a route has a name that could not be looked up, so it may be meant.
    NameUnresolved,
    /// Two routes claim the destination and disagree.
    RouteConflict,
    /// As many connections as are allowed are open.
    TooManyConnections,
    /// As many connections of one listener as are allowed are open.
    TooManyOnListener,
    /// As many connections of one peer as are allowed are open.
    TooManyOfPeer,
    /// As many handshakes as are allowed were under way, and this was the oldest without a whole hello.
    TooManyHandshakes,
    /// An open connection that the policy in force now would refuse.
    PolicyChanged,
    /// An open connection whose peer is not trusted any more.
    TrustChanged,
    /// Nothing was sent for too long.
    IdleTimeout,
    /// One side had ended, and the other sent nothing for too long.
    HalfCloseTimeout,
    /// One side reset the connection.
    Reset,
    /// TLS ended without `close_notify` while its direction was open.
    Truncated,
    /// Reading or writing failed while bytes were copied.
    Error,
    /// The proxy ended before the connection did.
    DrainForced,
    /// The proxy ended, or the connection's task was cancelled, before anything else ended the connection.
    Shutdown,
    /// A mistake in this proxy.
    Panic,
}

impl Reason {
    /// Every reason, for tables.
    pub const ALL: [Self; 43] = [
        Self::PlaintextInStrict,
        Self::SilentClient,
        Self::IncompleteHello,
        Self::MalformedHello,
        Self::HandshakeTimeout,
        Self::NoCertificate,
        Self::UnknownCa,
        Self::Expired,
        Self::NotYetValid,
        Self::BadCertificate,
        Self::TdMismatch,
        Self::IdMismatch,
        Self::Protocol,
        Self::PeerAlert,
        Self::PeerClosed,
        Self::HandshakeReset,
        Self::HandshakeIo,
        Self::NoIdentity,
        Self::ClientGone,
        Self::AppUnreachable,
        Self::AppTimeout,
        Self::PeerUnreachable,
        Self::PeerTimeout,
        Self::Loop,
        Self::NoOriginalDestination,
        Self::ForeignDestination,
        Self::NoRoute,
        Self::NameUnresolved,
        Self::RouteConflict,
        Self::TooManyConnections,
        Self::TooManyOnListener,
        Self::TooManyOfPeer,
        Self::TooManyHandshakes,
        Self::PolicyChanged,
        Self::TrustChanged,
        Self::IdleTimeout,
        Self::HalfCloseTimeout,
        Self::Reset,
        Self::Truncated,
        Self::Error,
        Self::DrainForced,
        Self::Shutdown,
        Self::Panic,
    ];

    /// The stable label, in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.row().label
    }

    /// What an operator can do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        self.row().hint
    }

    /// Whether a connection with this reason was refused.
    #[must_use]
    pub const fn decision(self) -> Decision {
        self.row().decision
    }

    /// Where the documentation says more: a page and the anchor on it, which is the label.
    #[must_use]
    pub fn doc(self) -> String {
        format!("docs/reasons.md#{}", self.label())
    }

    /// The reason with that label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.label() == label)
    }

    const fn row(self) -> Row {
        match self {
            Self::PlaintextInStrict => deny(
                "plaintext_in_strict",
                "the client has no sidecar; give it one, or set this port to PERMISSIVE in portLevelMtls while you migrate",
            ),
            Self::SilentClient => deny(
                "silent_client",
                "the client sent nothing; if the server speaks first on this port, set protocol: server-first or list it in inbound.serverFirstPorts",
            ),
            Self::IncompleteHello => deny(
                "incomplete_hello",
                "the client began TLS and went away, or let the time pass, before its hello was whole",
            ),
            Self::MalformedHello => deny(
                "malformed_hello",
                "the client's TLS hello is broken; what looks like TLS is not forwarded as plaintext",
            ),
            Self::HandshakeTimeout => {
                deny("handshake_timeout", "the handshake was not complete within timeouts.handshake")
            }
            Self::NoCertificate => deny(
                "no_certificate",
                "the peer speaks TLS but presents no certificate: it has no sidecar, or no identity yet",
            ),
            Self::UnknownCa => deny("unknown_ca", "the peer's certificate is from a CA that trustBundle does not hold"),
            Self::Expired => deny("expired", "renew the peer's certificate, or correct a clock"),
            Self::NotYetValid => deny("not_yet_valid", "correct the clock of this host or of the issuing CA"),
            Self::BadCertificate => deny("bad_certificate", "the peer's certificate is not an X.509-SVID"),
            Self::TdMismatch => deny(
                "td_mismatch",
                "the peer is of another trust domain; add mesh.trustDomainAliases or mesh.trustBundles if it is wanted",
            ),
            Self::IdMismatch => deny(
                "id_mismatch",
                "another workload answers at this address; correct identities, or find out who that is",
            ),
            Self::Protocol => deny(
                "protocol",
                "the peer and this proxy share no TLS version, group or suite, or the peer does not speak TLS; see tls.minVersion",
            ),
            Self::PeerAlert => deny("peer_alert", "the peer refused; its own log says why"),
            Self::PeerClosed => deny("peer_closed", "the peer closed during the handshake; its own log may say why"),
            Self::HandshakeReset => {
                deny("handshake_reset", "the peer reset the connection during the handshake; its own log may say why")
            }
            Self::HandshakeIo => deny("handshake_io", "the network failed during the handshake"),
            Self::NoIdentity => {
                deny("no_identity", "this proxy has no valid certificate of its own; see `identity` and /healthz/ready")
            }
            Self::ClientGone => deny("client_gone", "the client went away before anything was decided"),
            Self::AppUnreachable => deny("app_unreachable", "the app does not listen on that address (yet)"),
            Self::AppTimeout => deny("app_timeout", "the app did not accept within timeouts.connect"),
            Self::PeerUnreachable => {
                deny("peer_unreachable", "nothing listens at the destination, or its name does not resolve")
            }
            Self::PeerTimeout => deny("peer_timeout", "the destination did not accept within timeouts.connect"),
            Self::Loop => deny("loop", "the destination is a port of this proxy itself"),
            Self::NoOriginalDestination => deny(
                "no_original_destination",
                "the transparent listener was dialled directly; only redirected connections belong there",
            ),
            Self::ForeignDestination => deny(
                "foreign_destination",
                "the captured connection was for another host's address; redirect only what is for this host, by destination as well",
            ),
            Self::NameUnresolved => deny(
                "name_unresolved",
                "a name of an mtls route could not be looked up, so this address may be behind it; mend DNS, or name addresses under cidrs",
            ),
            Self::NoRoute => deny("no_route", "no route names this destination and outbound.otherwise is refuse"),
            Self::RouteConflict => deny(
                "route_conflict",
                "two routes claim this address with different modes or identities; make them agree",
            ),
            Self::TooManyConnections => {
                deny("too_many_connections", "raise limits.connections, or find out who opens so many")
            }
            Self::TooManyOnListener => {
                deny("too_many_on_listener", "raise the limit of this listener, or find out who opens so many")
            }
            Self::TooManyOfPeer => deny(
                "too_many_of_peer",
                "this peer has as many connections as limits.perIdentity allows; raise that, or find out why it opens so many",
            ),
            Self::TooManyHandshakes => deny(
                "too_many_handshakes",
                "raise limits.handshakes, or find out who opens connections and stays silent",
            ),
            Self::PolicyChanged => {
                deny("policy_changed", "a policy that came into force meanwhile refuses this connection")
            }
            Self::TrustChanged => {
                deny("trust_changed", "credentials that came into force meanwhile do not trust this peer any more")
            }
            Self::IdleTimeout => allow("idle_timeout", "no byte passed within timeouts.idle"),
            Self::HalfCloseTimeout => {
                allow("half_close_timeout", "one side had ended and the other sent nothing for too long")
            }
            Self::Reset => allow("reset", "one side reset the connection, and the other was reset as well"),
            Self::Truncated => {
                allow("truncated", "TLS ended without close_notify, so what was received may not be the whole")
            }
            Self::Error => allow("error", "the network failed while bytes were copied"),
            Self::DrainForced => {
                allow("drain_forced", "the proxy ended before the connection did; raise drain.grace if that matters")
            }
            Self::Shutdown => deny("shutdown", "the proxy ended, or a task was cancelled, while the connection lived"),
            Self::Panic => deny(
                "panic",
                "a mistake in this proxy ended this connection alone; please report it with the line that says panic",
            ),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A row of the table.
struct Row {
    label: &'static str,
    hint: &'static str,
    decision: Decision,
}

const fn deny(label: &'static str, hint: &'static str) -> Row {
    Row { label, hint, decision: Decision::Deny }
}

const fn allow(label: &'static str, hint: &'static str) -> Row {
    Row { label, hint, decision: Decision::Allow }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::Reason;

    #[test]
    fn labels_are_snake_case_and_name_one_reason_each() {
        let mut seen = HashSet::new();
        for reason in Reason::ALL {
            let label = reason.label();
            assert!(seen.insert(label), "{label} names two reasons");
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{label}");
            assert_eq!(Reason::from_label(label), Some(reason));
            assert_eq!(reason.to_string(), label);
            assert!(reason.doc().ends_with(&format!("#{label}")));
        }
        assert_eq!(Reason::from_label("clean"), None);
    }

    /// The page is what the table says; after a change of the table, `REASONS=write cargo test -p portcullis-policy`.
    #[test]
    fn the_page_of_reasons_is_the_table() {
        let mut page = String::from(
            "# Reasons\n\nThe values of `reason` in access logs and metrics. A connection that ended cleanly has `-`.\n",
        );
        for reason in Reason::ALL {
            page += &format!("\n## {}\n\n{}: {}.\n", reason.label(), reason.decision(), reason.hint());
        }
        page += "\n# Without mutual TLS\n\nFurther values of `reason` in `portcullis_no_mtls_reason_total`, which has those above \
                 for what was refused: inbound\nconnections that were let through without a verified peer.\n";
        for no_tls in crate::NoTls::ALL {
            page += &format!("\n## {}\n\n{}.\n", no_tls.label(), no_tls.meaning());
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reasons.md");
        if std::env::var("REASONS").is_ok_and(|wish| wish == "write") {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page, "docs/reasons.md");
    }

    #[test]
    fn every_reason_has_a_hint_on_one_line() {
        for reason in Reason::ALL {
            let hint = reason.hint();
            assert!(hint.len() > 20 && !hint.contains(['\n', '"']) && !hint.contains("  "), "{reason}: {hint}");
        }
    }
}
