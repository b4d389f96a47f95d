//! What the policy says about each attempt.

use std::fmt;

use portcullis_policy::Mode;

use crate::attempt::Attempt;

/// What is in force at the port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The mode of the port.
    pub mode: Mode,
    /// `tls.minVersion` is 1.2.
    pub allow_tls12: bool,
    /// AuthorizationPolicies allow the identity that the credentials have.
    pub allows_identity: bool,
    /// AuthorizationPolicies allow a client without an identity.
    pub allows_anonymous: bool,
}

impl Policy {
    /// The mode alone, and the defaults.
    #[must_use]
    pub const fn mode(mode: Mode) -> Self {
        Self { mode, allow_tls12: false, allows_identity: true, allows_anonymous: true }
    }
}

/// What is to be seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expected {
    /// It reaches the app.
    Accepted,
    /// It does not reach the app.
    Refused,
    /// No byte comes back before the client has sent one.
    NoByte,
    /// The mesh does not end this TLS: its bytes are the app's affair.
    NotTerminated,
    /// The policy says nothing about it.
    Either,
}

impl Expected {
    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::NoByte => "no-byte",
            Self::NotTerminated => "not-terminated",
            Self::Either => "either",
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Policy {
    /// What is to be seen; `credentials`: whether there are any for the attempt without ALPN.
    #[must_use]
    pub fn expects(&self, attempt: Attempt, credentials: bool) -> Expected {
        let accepted = |allowed: bool| if allowed { Expected::Accepted } else { Expected::Refused };
        match (attempt, self.mode) {
            (Attempt::Plaintext, Mode::Strict) => Expected::Refused,
            (Attempt::Plaintext, Mode::Permissive | Mode::Disable) => accepted(self.allows_anonymous),
            (Attempt::Silence, Mode::Strict) => Expected::NoByte,
            (Attempt::Silence, Mode::Permissive | Mode::Disable) => Expected::Either,
            (Attempt::Resumption | Attempt::EarlyData, Mode::Disable) => Expected::Either,
            (_, Mode::Disable) | (Attempt::NoAlpn, Mode::Permissive) => Expected::NotTerminated,
            (Attempt::RightIdentity, _) => accepted(self.allows_identity),
            (Attempt::NoAlpn, Mode::Strict) => accepted(credentials && self.allows_identity),
            (Attempt::Tls12, _) => accepted(self.allow_tls12),
            (
                Attempt::NoCertificate
                | Attempt::WrongCa
                | Attempt::Expired
                | Attempt::WrongIdentity
                | Attempt::Tls11
                | Attempt::Tls10
                | Attempt::Resumption
                | Attempt::EarlyData,
                Mode::Strict | Mode::Permissive,
            ) => Expected::Refused,
        }
    }
}
