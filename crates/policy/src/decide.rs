//! What happens to a connection: the table of modes and openings.

use portcullis_wire::Opening;

use crate::Mode;

/// What to do with a connection whose first bytes are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Terminate TLS; the client must prove an identity.
    Terminate,
    /// Forward every byte unchanged, without a verified identity.
    PassThrough(PassThroughReason),
    /// Close it; no byte reaches the app.
    Refuse(Refusal),
}

/// Why a connection is refused before any handshake.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// Plaintext on a STRICT port.
    PlaintextInStrict,
    /// No byte came before the client's FIN or the deadline.
    SilentClient,
    /// A ClientHello that was never finished.
    IncompleteHello,
    /// A ClientHello whose body does not parse.
    MalformedHello,
}

/// Why a connection passes through without a verified identity.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PassThroughReason {
    /// The port's mode is DISABLE: the bytes are not inspected.
    Disabled,
    /// The client speaks plaintext.
    Plaintext,
    /// The client speaks TLS of its own, not the mesh's.
    ForeignTls,
    /// The app spoke first on a server-first port, before the client sent anything.
    ServerFirst,
}

impl PassThroughReason {
    /// Every variant, for tables.
    pub const ALL: [Self; 4] = [Self::Disabled, Self::Plaintext, Self::ForeignTls, Self::ServerFirst];

    /// The stable label in logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "port_disabled",
            Self::Plaintext => "no_client_hello",
            Self::ForeignTls => "foreign_tls",
            Self::ServerFirst => "server_first",
        }
    }

    /// What the label means, for the documentation.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Disabled => "the port's mode is DISABLE, so the connection passes through uninspected",
            Self::Plaintext => "the client speaks plaintext and the port is PERMISSIVE: it has no sidecar yet",
            Self::ForeignTls => {
                "the client speaks TLS of its own, which PERMISSIVE hands to the app; STRICT would demand a mesh certificate"
            }
            Self::ServerFirst => "the app spoke first on a server-first port under PERMISSIVE",
        }
    }

    /// The label `transport`; `-` if the bytes were not inspected.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Disabled => "-",
            Self::Plaintext | Self::ServerFirst => "plaintext",
            Self::ForeignTls => "tls",
        }
    }
}

/// Decides from the mode and the opening alone. The certificate is not known yet; if it is refused later, the connection
/// ends.
#[must_use]
pub const fn decide(mode: Mode, opening: Opening) -> Action {
    match (mode, opening) {
        (Mode::Disable, _) => Action::PassThrough(PassThroughReason::Disabled),
        (Mode::Strict | Mode::Permissive, Opening::MeshTls)
        | (Mode::Strict, Opening::ForeignTls | Opening::UnreadTls | Opening::Malformed | Opening::Incomplete) => {
            Action::Terminate
        }
        (Mode::Permissive, Opening::ForeignTls) => Action::PassThrough(PassThroughReason::ForeignTls),
        (Mode::Permissive, Opening::Plain) => Action::PassThrough(PassThroughReason::Plaintext),
        (Mode::Strict, Opening::Plain) => Action::Refuse(Refusal::PlaintextInStrict),
        // PERMISSIVE needs the whole ClientHello to tell mesh TLS from the app's own.
        (Mode::Permissive, Opening::UnreadTls | Opening::Incomplete) => Action::Refuse(Refusal::IncompleteHello),
        (Mode::Permissive, Opening::Malformed) => Action::Refuse(Refusal::MalformedHello),
        (Mode::Strict | Mode::Permissive, Opening::Silent) => Action::Refuse(Refusal::SilentClient),
    }
}

/// Whether an open connection, with or without a verified peer, may stay open under the mode. This asks whether a new
/// connection like it would be admitted, not whether TLS would be terminated as it was for this one.
#[must_use]
pub const fn admit(mode: Mode, authenticated: bool) -> bool {
    match mode {
        Mode::Permissive | Mode::Disable => true,
        Mode::Strict => authenticated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        use Action::{PassThrough, Refuse, Terminate};
        let rows = [
            (Opening::MeshTls, Terminate, Terminate),
            (Opening::ForeignTls, Terminate, PassThrough(PassThroughReason::ForeignTls)),
            (Opening::UnreadTls, Terminate, Refuse(Refusal::IncompleteHello)),
            (Opening::Plain, Refuse(Refusal::PlaintextInStrict), PassThrough(PassThroughReason::Plaintext)),
            (Opening::Malformed, Terminate, Refuse(Refusal::MalformedHello)),
            (Opening::Incomplete, Terminate, Refuse(Refusal::IncompleteHello)),
            (Opening::Silent, Refuse(Refusal::SilentClient), Refuse(Refusal::SilentClient)),
        ];
        assert_eq!(rows.len(), Opening::ALL.len());
        let names = PassThroughReason::ALL.map(|reason| (reason.label(), reason.transport()));
        let stable = [
            ("port_disabled", "-"),
            ("no_client_hello", "plaintext"),
            ("foreign_tls", "tls"),
            ("server_first", "plaintext"),
        ];
        assert_eq!(names, stable);
        for (opening, strict, permissive) in rows {
            assert_eq!(decide(Mode::Strict, opening), strict, "STRICT {opening}");
            assert_eq!(decide(Mode::Permissive, opening), permissive, "PERMISSIVE {opening}");
            let disabled = PassThrough(PassThroughReason::Disabled);
            assert_eq!(decide(Mode::Disable, opening), disabled, "DISABLE {opening}");
        }
    }
}
