//! Why policy refuses, in one table: label for metrics and logs, hint for people.

/// Why a connection is refused from its mode and opening alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Plaintext on a STRICT port.
    PlaintextInStrict,
    /// A ClientHello that was never finished.
    IncompleteHello,
    /// A ClientHello whose body does not parse.
    MalformedHello,
    /// Not one byte within the deadline.
    SilentClient,
}

impl Reason {
    /// Stable label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::PlaintextInStrict => "plaintext_in_strict",
            Self::IncompleteHello => "incomplete_hello",
            Self::MalformedHello => "malformed_hello",
            Self::SilentClient => "silent_client",
        }
    }

    /// What an operator can do.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::PlaintextInStrict => {
                "the client has no sidecar; give it one, or set the port to PERMISSIVE in portLevelMtls while you migrate"
            }
            Self::IncompleteHello => "the client began TLS and did not finish its hello in time",
            Self::MalformedHello => {
                "the client's TLS hello is broken; what looks like TLS is not forwarded as plaintext"
            }
            Self::SilentClient => {
                "the client sent nothing; if the server speaks first on this port, set protocol: server-first or list it \
                 in inbound.serverFirstPorts"
            }
        }
    }
}
