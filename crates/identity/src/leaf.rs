//! The profile of a workload's certificate: the leaf of X.509-SVID.
//!
//! Time, issuer and signature are not checked here; [`check`] is a function of the bytes alone, so that identity,
//! verification and authorisation can all rest on one reading of the same bytes.

use crate::id::SpiffeId;
use crate::svid::{SvidError, UsageError};
use crate::x509::Strict;

/// Relaxations for certificates of foreign CAs. None by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Compat {
    /// An extended key usage with only the purpose that is needed is enough.
    pub eku: bool,
    /// Key usage need not be critical.
    pub ku_critical: bool,
}

/// On which side of the handshake the certificate is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The peer connected to this process.
    Client,
    /// This process connected to the peer.
    Server,
}

/// Which relaxations of [`Compat`] this certificate needed; each use is counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Relaxed {
    /// It lacks serverAuth or clientAuth.
    pub eku: bool,
    /// Its key usage is not critical.
    pub ku_critical: bool,
}

/// A certificate that has the form of a workload's SVID.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// The one identity.
    pub id: SpiffeId,
    /// First second of validity, in Unix time.
    pub not_before_unix: i64,
    /// Last second of validity, in Unix time.
    pub not_after_unix: i64,
    /// The serial number, big-endian.
    pub serial: Vec<u8>,
    /// The relaxations that it needed.
    pub relaxed: Relaxed,
}

/// Checks that the bytes have the profile of a workload's SVID, and returns its identity and validity.
///
/// # Errors
/// The first rule that is broken; see [`SvidError::class`].
pub fn check(der: &[u8], compat: Compat, role: Role) -> Result<Leaf, SvidError> {
    let strict = Strict::parse(der)?;
    let id = identity(&strict)?;
    if id.path().is_empty() {
        return Err(SvidError::LeafNoPath);
    }
    if strict.is_ca()? {
        return Err(UsageError::LeafCa.into());
    }
    let relaxed = Relaxed { ku_critical: check_key_usage(&strict, compat)?, eku: check_eku(&strict, compat, role)? };
    strict.check_key()?;
    let validity = strict.cert().validity();
    Ok(Leaf {
        id,
        not_before_unix: validity.not_before.timestamp(),
        not_after_unix: validity.not_after.timestamp(),
        serial: strict.cert().raw_serial().to_vec(),
        relaxed,
    })
}

/// The identity of a certificate: its only URI subject alternative name, and never anything else.
fn identity(strict: &Strict<'_>) -> Result<SpiffeId, SvidError> {
    match strict.uris()?.as_slice() {
        [] => Err(SvidError::NoUriSan),
        [uri] => Ok(SpiffeId::parse_bytes(uri)?),
        many => Err(SvidError::MultiUriSan(many.len())),
    }
}

/// Returns whether a relaxation was needed.
fn check_key_usage(strict: &Strict<'_>, compat: Compat) -> Result<bool, SvidError> {
    let Some((usage, critical)) = strict.key_usage()? else {
        return Err(UsageError::NoDigitalSignature.into());
    };
    if usage.key_cert_sign() {
        return Err(UsageError::LeafCertSign.into());
    }
    if usage.crl_sign() {
        return Err(UsageError::LeafCrlSign.into());
    }
    if !usage.digital_signature() {
        return Err(UsageError::NoDigitalSignature.into());
    }
    if !critical && !compat.ku_critical {
        return Err(UsageError::KuNotCritical.into());
    }
    Ok(!critical)
}

/// Returns whether a relaxation was needed. An absent extension allows everything, `any` counts for nothing.
fn check_eku(strict: &Strict<'_>, compat: Compat, role: Role) -> Result<bool, SvidError> {
    let Some(usage) = strict.extended_key_usage()? else {
        return Ok(false);
    };
    if usage.server_auth && usage.client_auth {
        return Ok(false);
    }
    let needed = match role {
        Role::Client => usage.client_auth,
        Role::Server => usage.server_auth,
    };
    if compat.eku && needed { Ok(true) } else { Err(UsageError::Eku.into()) }
}
