//! What may sign a workload's certificate: intermediates, and the roots of a bundle.
//!
//! webpki checks cA and path lengths of intermediates, nothing of the roots, and never key usage. This module checks the
//! rest.

use crate::id::SpiffeId;
use crate::id_error::SCHEME;
use crate::svid::{SvidError, UsageError};
use crate::x509::Strict;

/// When a signing certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// First second of validity, in Unix time.
    pub not_before_unix: i64,
    /// Last second of validity, in Unix time.
    pub not_after_unix: i64,
}

/// Checks an intermediate: cA true, keyCertSign, and no workload's identity of its own.
///
/// # Errors
/// The first rule that is broken; see [`SvidError::class`].
pub fn check(der: &[u8]) -> Result<Validity, SvidError> {
    let strict = Strict::parse(der)?;
    match strict.key_usage()? {
        _ if !strict.is_ca()? => Err(UsageError::NotCa.into()),
        Some((usage, _)) if usage.key_cert_sign() => common(&strict),
        _ => Err(UsageError::NoCertSign.into()),
    }
}

/// Checks a root. As an intermediate, but it may lack key usage: being in the bundle is what makes it trusted.
///
/// # Errors
/// The first rule that is broken; see [`SvidError::class`].
pub fn check_root(der: &[u8]) -> Result<Validity, SvidError> {
    let strict = Strict::parse(der)?;
    match strict.key_usage()? {
        _ if !strict.is_ca()? => Err(UsageError::NotCa.into()),
        Some((usage, _)) if !usage.key_cert_sign() => Err(UsageError::NoCertSign.into()),
        _ => common(&strict),
    }
}

fn common(strict: &Strict<'_>) -> Result<Validity, SvidError> {
    for uri in strict.uris()? {
        // A signing certificate need not be an SVID, so other URIs are allowed.
        if uri.starts_with(SCHEME.as_bytes()) && !SpiffeId::parse_bytes(uri)?.path().is_empty() {
            return Err(SvidError::SignerPath);
        }
    }
    strict.check_key()?;
    let validity = strict.cert().validity();
    Ok(Validity { not_before_unix: validity.not_before.timestamp(), not_after_unix: validity.not_after.timestamp() })
}
