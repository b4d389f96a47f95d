//! The SPIFFE ID, parsed byte by byte.
//!
//! No URL library: those decode, fold case, accept ports and user names, and treat `\` as `/`, and each of these has been
//! somebody's security bug. The grammar of the standard is small enough to be checked directly, and the only accepted form
//! is the canonical one, so two IDs are equal exactly when their bytes are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::{self, TrustDomain};

/// The only scheme, with its separator; matched exactly, in lower case.
pub const SCHEME: &str = "spiffe://";

/// The longest ID that is accepted, in bytes (SPIFFE-ID 2.3: implementations must support 2048, and should not make more).
pub const MAX_ID_LEN: usize = 2048;

/// Why a text is not a SPIFFE ID or not the name of a trust domain.
///
/// `Display` says it to a person; [`IdError::class`] is the stable name for machines.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum IdError {
    /// Nothing at all.
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
    #[error("the trust domain is {length} bytes long, at most {max} are allowed", max = domain::MAX_TRUST_DOMAIN_LEN)]
    TdLength {
        /// How long it is.
        length: usize,
    },
    /// A byte that a trust domain cannot have.
    #[error("the trust domain has {}{}; only a-z 0-9 . _ - are allowed, and nothing is decoded or lower-cased", Byte(*.byte), At(*.offset))]
    TdChar {
        /// The byte.
        byte: u8,
        /// Its place in the whole input, from 0.
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
        /// Its place in the whole input, from 0.
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

/// Writes a byte so that it can't do harm in a log or a terminal.
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

/// Where it is; counted from 1 for people.
struct At(usize);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " at byte {}", self.0.saturating_add(1))
    }
}

/// A valid SPIFFE ID: `spiffe://` trust domain, and a path that may be empty.
///
/// Cheap to clone; equal when the bytes are equal.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins in `text` (its length if there is none).
    path_at: usize,
}

/// The namespace and service account of an ID in Istio's shape, `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
///
/// It is a convention only: an ID without this shape is as good an identity as any.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IstioId<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The service account.
    pub service_account: &'a str,
}

impl SpiffeId {
    /// Parses the canonical text form, and nothing else.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        Self::parse_bytes(text.as_bytes())
    }

    /// Parses bytes from a certificate, without a lossy step through text.
    ///
    /// # Errors
    /// The first rule that the bytes break.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let path_at = check(bytes)?;
        // `check` let ASCII through only, so this cannot fail; should it ever, the error is the honest one.
        let text = std::str::from_utf8(bytes)
            .map_err(|error| IdError::PathChar { byte: 0x80, offset: error.valid_up_to() })?;
        Ok(Self { text: text.into(), path_at })
    }

    /// The ID of a workload in Istio's shape.
    ///
    /// # Errors
    /// When a part is empty or has a character that a path segment cannot have.
    pub fn for_workload(domain: &TrustDomain, namespace: &str, service_account: &str) -> Result<Self, IdError> {
        let id = Self::parse(&format!("{SCHEME}{domain}/ns/{namespace}/sa/{service_account}"))?;
        // A slash inside a part would shift the others: `a/sa/b` must not become another workload's ID. With one, the path
        // no longer has this shape.
        if id.istio().is_some() { Ok(id) } else { Err(IdError::PathChar { byte: b'/', offset: id.path_at }) }
    }

    /// The whole ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        TrustDomain::from_checked(self.domain_str())
    }

    /// The name of the trust domain, borrowed.
    #[must_use]
    pub fn domain_str(&self) -> &str {
        self.text.get(SCHEME.len()..self.path_at).unwrap_or_default()
    }

    /// The path with its leading slash, or the empty string.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(self.path_at..).unwrap_or_default()
    }

    /// Namespace and service account, if the path has Istio's shape exactly.
    #[must_use]
    pub fn istio(&self) -> Option<IstioId<'_>> {
        let mut segments = self.path().split('/');
        let (empty, ns, namespace, sa, service_account, end) =
            (segments.next()?, segments.next()?, segments.next()?, segments.next()?, segments.next()?, segments.next());
        (empty.is_empty() && ns == "ns" && sa == "sa" && end.is_none())
            .then_some(IstioId { namespace, service_account })
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpiffeId({})", self.text)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Checks the whole grammar and says where the path begins. Lengths are looked at before anything is scanned.
fn check(bytes: &[u8]) -> Result<usize, IdError> {
    if bytes.is_empty() {
        return Err(IdError::Empty);
    }
    if bytes.len() > MAX_ID_LEN {
        return Err(IdError::Length { length: bytes.len() });
    }
    let rest = bytes.strip_prefix(SCHEME.as_bytes()).ok_or(IdError::Scheme)?;
    let domain_len = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
    let (domain, path) = rest.split_at_checked(domain_len).unwrap_or((rest, &[]));
    domain::check(domain, SCHEME.len())?;
    let path_at = SCHEME.len().saturating_add(domain_len);
    check_path(path, path_at)?;
    Ok(path_at)
}

fn check_path(path: &[u8], offset: usize) -> Result<(), IdError> {
    let Some(segments) = path.strip_prefix(b"/") else {
        return Ok(());
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if let Some((at, &byte)) = path.iter().enumerate().find(|&(_, &byte)| !is_allowed(byte)) {
        return Err(IdError::PathChar { byte, offset: offset.saturating_add(at) });
    }
    let mut segments = segments.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"" if segments.peek().is_none() => return Err(IdError::TrailingSlash),
            b"" => return Err(IdError::EmptySegment),
            b"." | b".." => return Err(IdError::DotSegment),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
