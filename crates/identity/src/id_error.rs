//! The limits of SPIFFE IDs and trust domain names, and why a text is neither.

use std::fmt;

/// The only scheme, with its separator; matched exactly, in lower case.
pub const SCHEME: &str = "spiffe://";

/// The longest name of a trust domain, in bytes (SPIFFE-ID 2.1).
pub(crate) const MAX_TRUST_DOMAIN_LEN: usize = 255;

/// The longest ID that is accepted, in bytes (SPIFFE-ID 2.3: implementations must support 2048, and should not make more).
pub const MAX_ID_LEN: usize = 2048;

/// Why a text is not a SPIFFE ID or not the name of a trust domain.
///
/// `Display` explains it; [`IdError::class`] is the stable name for programs.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("the ID is empty; write spiffe://TRUST-DOMAIN/PATH")]
    Empty,
    /// More than [`MAX_ID_LEN`] bytes.
    #[error("the ID is {length} bytes long, at most {MAX_ID_LEN} are allowed")]
    Length {
        /// How long it is.
        length: usize,
    },
    /// It does not begin with `spiffe://`.
    #[error("it must begin with spiffe:// in lower case")]
    Scheme,
    /// No trust domain.
    #[error("the trust domain is missing")]
    TdMissing,
    /// More than 255 bytes of trust domain.
    #[error("the trust domain is {length} bytes long, at most {max} are allowed", max = MAX_TRUST_DOMAIN_LEN)]
    TdLength {
        /// How long it is.
        length: usize,
    },
    /// A byte that a trust domain cannot have.
    #[error("the trust domain has {}{}; only a-z 0-9 . _ - are allowed, and nothing is decoded or lower-cased", Byte(*.byte), At(*.offset))]
    TdChar {
        /// The byte.
        byte: u8,
        /// Its offset in the whole input, from 0.
        offset: usize,
    },
    /// A trust domain name with a path behind it, as if a workload's ID had been pasted.
    #[error("this is a trust domain with a path; only the name of the trust domain belongs here")]
    TdHasPath,
    /// A byte that a path cannot have.
    #[error("the path has {}{}; only A-Z a-z 0-9 . _ - and / are allowed, and nothing is decoded", Byte(*.byte), At(*.offset))]
    PathChar {
        /// The byte.
        byte: u8,
        /// Its offset in the whole input, from 0.
        offset: usize,
    },
    /// Two slashes in a row.
    #[error("the path has an empty segment (two slashes in a row)")]
    EmptySegment,
    /// A segment that is `.` or `..`.
    #[error("the path has a segment that is . or ..")]
    DotSegment,
    /// A slash at the end.
    #[error("the path ends with a slash")]
    TrailingSlash,
}

impl IdError {
    /// The stable class of the error, for tests, metrics and JSON.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Length { .. } => "length",
            Self::Scheme => "scheme",
            Self::TdMissing => "td-missing",
            Self::TdLength { .. } => "td-length",
            Self::TdChar { .. } => "td-char",
            Self::TdHasPath => "td-has-path",
            Self::PathChar { .. } => "path-char",
            Self::EmptySegment => "empty-segment",
            Self::DotSegment => "dot-segment",
            Self::TrailingSlash => "trailing-slash",
        }
    }
}

/// Escapes a byte so that it is safe in a log or a terminal.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "{:?}", char::from(self.0))
        } else {
            write!(f, "byte 0x{:02x}", self.0)
        }
    }
}

/// An offset, printed from 1.
struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " at byte {}", self.0.saturating_add(1))
    }
}
