//! The classification of the first bytes of a connection.
//!
//! This is all that a policy decision knows about a client before a handshake, so there is one variant per case that the
//! decision distinguishes. The caller reads the bytes and sets the deadline.

use core::fmt;

/// The kind of a client's first bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Opening {
    /// A whole, well-formed TLS ClientHello that offers at least one of the mesh's ALPN names.
    MeshTls,
    /// A whole, well-formed TLS ClientHello without any of the mesh's ALPN names: the app's own TLS, or a mesh peer
    /// that does not offer them.
    ForeignTls,
    /// The first byte is that of a TLS handshake record, and no more was inspected. Sufficient where all TLS is terminated; it
    /// does not distinguish mesh TLS from the app's own.
    UnreadTls,
    /// Bytes that cannot be the start of a ClientHello.
    Plain,
    /// A whole ClientHello message whose body does not parse. It is neither served as TLS nor forwarded as plaintext.
    Malformed,
    /// A prefix of a ClientHello, cut short by the client's FIN or by the deadline.
    Incomplete,
    /// Not a single byte before the client's FIN or the deadline.
    Silent,
}

impl Opening {
    /// Every variant, for tables and tests.
    pub const ALL: [Self; 7] = [
        Self::MeshTls,
        Self::ForeignTls,
        Self::UnreadTls,
        Self::Plain,
        Self::Malformed,
        Self::Incomplete,
        Self::Silent,
    ];

    /// A short, stable name for logs and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::MeshTls => "mesh_tls",
            Self::ForeignTls => "foreign_tls",
            Self::UnreadTls => "tls",
            Self::Plain => "plaintext",
            Self::Malformed => "malformed_hello",
            Self::Incomplete => "incomplete_hello",
            Self::Silent => "silent",
        }
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
