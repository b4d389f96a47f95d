//! The three modes.

use serde::Serialize;

/// What a port accepts: Istio's `spec.mtls.mode`, resolved, so without UNSET.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// Only mTLS.
    Strict,
    /// mTLS and anything else; a client that does not offer mesh TLS is forwarded without an identity.
    Permissive,
    /// No inspection: bytes are forwarded as they are.
    Disable,
}

impl Mode {
    /// Every mode, for tables and tests.
    pub const ALL: [Self; 3] = [Self::Strict, Self::Permissive, Self::Disable];

    /// Istio's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "STRICT",
            Self::Permissive => "PERMISSIVE",
            Self::Disable => "DISABLE",
        }
    }
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
