//! Fields that the profiles of certificates share: times, serial numbers, names.

use std::time::Duration;

use aws_lc_rs::digest;
use portcullis_identity::TrustDomain;
use portcullis_tls::Clock;
use time::OffsetDateTime;
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::error::CaError;

/// Certificates are valid from a little before they are made, for peers whose clock is behind.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60);

/// The trust domain that a CA's certificate names.
pub(crate) fn trust_domain_of(certificate: &X509Certificate<'_>) -> Result<TrustDomain, CaError> {
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(CaError::NoTrustDomain)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => {
            let name = uri.strip_prefix("spiffe://").ok_or(CaError::NoTrustDomain)?;
            TrustDomain::parse(name).map_err(|_| CaError::NoTrustDomain)
        }
        _ => Err(CaError::NoTrustDomain),
    }
}

/// The time now as the certificate library counts it.
pub(crate) fn now(clock: &Clock) -> Result<OffsetDateTime, CaError> {
    OffsetDateTime::from_unix_timestamp(clock.now_unix()).map_err(|_| CaError::TooLong)
}

/// The end of a lifetime.
pub(crate) fn after(now: OffsetDateTime, ttl: Duration) -> Result<OffsetDateTime, CaError> {
    let ttl = time::Duration::try_from(ttl).map_err(|_| CaError::TooLong)?;
    now.checked_add(ttl).ok_or(CaError::TooLong)
}

/// 126 random bits, positive and never zero at the top, so that the number has the same length everywhere.
pub(crate) fn serial() -> Result<[u8; 16], CaError> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Random)?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(bytes)
}

/// A unique name for each CA. If two CAs had the same name, a verifier that trusts one would report a bad signature instead
/// of an unknown issuer for certificates of the other.
pub(crate) fn name(trust_domain: &TrustDomain, what: &str, serial: &[u8; 16]) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(rcgen::DnType::OrganizationName, trust_domain.as_str());
    let distinct: String = serial.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    name.push(rcgen::DnType::CommonName, format!("Portcullis {what} {distinct}"));
    name
}

/// The name of a root in files and reports: the SHA-256 of its certificate.
pub(crate) fn anchor_of(der: &[u8]) -> String {
    crate::hex::text(digest::digest(&digest::SHA256, der).as_ref())
}
