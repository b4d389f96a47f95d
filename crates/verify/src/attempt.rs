//! The ways in which a connection is tried.

/// One way to connect.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Attempt {
    /// Mesh TLS with the credentials that were given.
    RightIdentity,
    /// An HTTP request without TLS.
    Plaintext,
    /// Mesh TLS without a client certificate.
    NoCertificate,
    /// Mesh TLS with a certificate of a CA made for this run.
    WrongCa,
    /// Mesh TLS with an expired certificate.
    Expired,
    /// Mesh TLS with an identity of another trust domain, in a chain that names the server's CA.
    WrongIdentity,
    /// A hello of TLS 1.2 at most.
    Tls12,
    /// A hello of TLS 1.1 at most.
    Tls11,
    /// A hello of TLS 1.0.
    Tls10,
    /// A second connection with what the first one left.
    Resumption,
    /// Data before the handshake (0-RTT).
    EarlyData,
    /// TLS that does not announce the mesh, with the credentials if there are any.
    NoAlpn,
    /// No byte at all.
    Silence,
}

impl Attempt {
    /// In the order in which they are tried: the one that others are compared with first, the one that waits last.
    pub const ALL: [Self; 13] = [
        Self::RightIdentity,
        Self::Plaintext,
        Self::NoCertificate,
        Self::WrongCa,
        Self::Expired,
        Self::WrongIdentity,
        Self::Tls12,
        Self::Tls11,
        Self::Tls10,
        Self::Resumption,
        Self::EarlyData,
        Self::NoAlpn,
        Self::Silence,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RightIdentity => "right-identity",
            Self::Plaintext => "plaintext",
            Self::NoCertificate => "no-certificate",
            Self::WrongCa => "wrong-ca",
            Self::Expired => "expired",
            Self::WrongIdentity => "wrong-identity",
            Self::Tls12 => "tls1.2",
            Self::Tls11 => "tls1.1",
            Self::Tls10 => "tls1.0",
            Self::Resumption => "resumption",
            Self::EarlyData => "early-data",
            Self::NoAlpn => "no-alpn",
            Self::Silence => "silence",
        }
    }

    /// The attempt of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|attempt| attempt.name() == name)
    }

    /// Whether it begins with a byte of TLS.
    pub(crate) const fn is_tls(self) -> bool {
        !matches!(self, Self::Plaintext | Self::Silence)
    }
}
