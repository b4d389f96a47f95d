//! What becomes of a connection: the table of modes and openings.

use portcullis_wire::Opening;

use crate::{Mode, Reason};

/// What to do with a connection whose first bytes are known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Terminate TLS; the client must prove an identity.
    Terminate,
    /// Forward every byte as it is, without an identity.
    PassThrough(NoTls),
    /// Close it; no byte reaches the app.
    Refuse(Reason),
}

/// Why a connection has no verified identity although it was let through.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum NoTls {
    /// The port's mode is DISABLE: nobody looked.
    Disabled,
    /// The client speaks plaintext.
    Plaintext,
    /// The client speaks TLS that is not the mesh's.
    ForeignTls,
    /// The app spoke first on a port where it may; the client had not said anything.
    ServerFirst,
}

impl NoTls {
    /// Every variant, for tables.
    pub const ALL: [Self; 4] = [Self::Disabled, Self::Plaintext, Self::ForeignTls, Self::ServerFirst];

    /// A stable name for logs and metrics: why this connection is not mTLS.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "port_disabled",
            Self::Plaintext => "no_client_hello",
            Self::ForeignTls => "foreign_tls",
            Self::ServerFirst => "server_first",
        }
    }

    /// The same in words.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Disabled => "the port's mode is DISABLE, so nobody looked",
            Self::Plaintext => "the client speaks plaintext and the port is PERMISSIVE: it has no sidecar yet",
            Self::ForeignTls => {
                "the client speaks TLS of its own, which PERMISSIVE hands to the app; STRICT would demand a mesh certificate"
            }
            Self::ServerFirst => "the app spoke first on a server-first port under PERMISSIVE",
        }
    }

    /// The label `transport`: `-` where nobody looked.
    #[must_use]
    pub const fn transport(self) -> &'static str {
        match self {
            Self::Disabled => "-",
            Self::Plaintext | Self::ServerFirst => "plaintext",
            Self::ForeignTls => "tls",
        }
    }
}

/// Decides from the mode and the opening alone; the certificate is not visible yet, and a failure afterwards ends the
/// connection.
#[must_use]
pub const fn decide(mode: Mode, opening: Opening) -> Action {
    match (mode, opening) {
        (Mode::Disable, _) => Action::PassThrough(NoTls::Disabled),
        (Mode::Strict | Mode::Permissive, Opening::MeshTls)
        | (Mode::Strict, Opening::ForeignTls | Opening::UnreadTls | Opening::Malformed | Opening::Incomplete) => {
            Action::Terminate
        }
        (Mode::Permissive, Opening::ForeignTls) => Action::PassThrough(NoTls::ForeignTls),
        (Mode::Permissive, Opening::Plain) => Action::PassThrough(NoTls::Plaintext),
        (Mode::Strict, Opening::Plain) => Action::Refuse(Reason::PlaintextInStrict),
        // Somebody must have looked further before PERMISSIVE can tell mesh TLS from the app's own.
        (Mode::Permissive, Opening::UnreadTls | Opening::Incomplete) => Action::Refuse(Reason::IncompleteHello),
        (Mode::Permissive, Opening::Malformed) => Action::Refuse(Reason::MalformedHello),
        (Mode::Strict | Mode::Permissive, Opening::Silent) => Action::Refuse(Reason::SilentClient),
    }
}

/// Whether a connection may stay open under the mode, with or without a verified peer. For live connections after a change:
/// what matters is whether a new one like it would be let through, not whether it would be terminated as this one was.
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
            (Opening::ForeignTls, Terminate, PassThrough(NoTls::ForeignTls)),
            (Opening::UnreadTls, Terminate, Refuse(Reason::IncompleteHello)),
            (Opening::Plain, Refuse(Reason::PlaintextInStrict), PassThrough(NoTls::Plaintext)),
            (Opening::Malformed, Terminate, Refuse(Reason::MalformedHello)),
            (Opening::Incomplete, Terminate, Refuse(Reason::IncompleteHello)),
            (Opening::Silent, Refuse(Reason::SilentClient), Refuse(Reason::SilentClient)),
        ];
        assert_eq!(rows.len(), Opening::ALL.len());
        let names = NoTls::ALL.map(|no_tls| (no_tls.label(), no_tls.transport()));
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
            assert_eq!(decide(Mode::Disable, opening), PassThrough(NoTls::Disabled), "DISABLE {opening}");
        }
    }
}
