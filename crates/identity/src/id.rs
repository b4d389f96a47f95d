//! The SPIFFE ID, parsed byte by byte.
//!
//! No URL library: those decode, fold case, accept ports and user names, and treat `\` as `/`, and each of these has been a
//! security bug somewhere. The grammar of the standard is small enough to be checked directly, and the only accepted form
//! is the canonical one, so two IDs are equal exactly when their bytes are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::domain::{self, TrustDomain};
use crate::id_error::{IdError, MAX_ID_LEN, SCHEME};

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
        // `check` let ASCII through only, so this cannot fail; if it ever did, this error would be accurate.
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

/// Checks the whole grammar and says where the path begins. Lengths are checked before anything is scanned.
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
