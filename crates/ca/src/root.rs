//! A root: made once, read back from its files.

use std::time::Duration;

use portcullis_identity::{KeyType, SpiffeId, TrustDomain};
use portcullis_tls::Clock;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::intermediate::name;
use crate::leaf::Issuing;
use crate::{csr, key};

/// Certificates are valid from a little before they are made, for peers whose clock is behind.
pub(crate) const BACKDATE: Duration = Duration::from_secs(60);

/// Why the CA cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate file is not one certificate in PEM.
    #[error("the CA certificate cannot be read: it is not one PEM certificate")]
    Certificate,
    /// The certificate may not sign.
    #[error("the CA certificate is no CA: basicConstraints must say CA:TRUE and keyUsage keyCertSign")]
    NotCa,
    /// The certificate names no trust domain.
    #[error("the CA certificate names no trust domain: it needs one URI SAN such as spiffe://cluster.local")]
    NoTrustDomain,
    /// The key file is not a private key.
    #[error("the CA key cannot be read: {0}")]
    Key(rcgen::Error),
    /// The key is of a kind that nobody here signs with.
    #[error("the CA key is of a kind that is not accepted; use ECDSA P-256 or P-384, RSA, or Ed25519")]
    KeyKind,
    /// A root is needed, and this is a CA below one.
    #[error("only a root may sign an intermediate, and this CA is one itself")]
    NotRoot,
    /// Key and certificate do not belong together.
    #[error("the CA key is not the key of the CA certificate")]
    KeyMismatch,
    /// The CA's time is over.
    #[error("the CA certificate has expired; make a new one")]
    Expired,
    /// The ID is of another trust domain.
    #[error("{id} does not belong to this CA's trust domain {trust_domain}")]
    ForeignId {
        /// Whom to issue for.
        id: SpiffeId,
        /// Whom this CA may name.
        trust_domain: TrustDomain,
    },
    /// A workload's ID has a path.
    #[error("{0} names a whole trust domain; a workload's ID has a path, such as /ns/NAMESPACE/sa/ACCOUNT")]
    NoPath(SpiffeId),
    /// The CA's own ID.
    #[error("{0} is the CA itself, and no workload's ID")]
    OwnId(SpiffeId),
    /// The trust domain's name is too long for an ID.
    #[error("trust domain {0} is too long to name the CA in it")]
    NoOwnId(TrustDomain),
    /// The lifetime is shorter than a minute.
    #[error("a certificate must live for a minute or more")]
    TooShort,
    /// The lifetime ends after the last date that there is.
    #[error("the lifetime is longer than a date can say")]
    TooLong,
    /// The library cannot make it.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// No random numbers.
    #[error("the operating system's random generator failed")]
    Random,
}

/// A root with its key; read back from files, it may also be a CA below one.
pub struct Root {
    pub(crate) issuing: Issuing,
    pub(crate) trust_domain: TrustDomain,
    /// What an intermediate below it gets as well.
    pub(crate) key_type: KeyType,
    /// What goes behind a leaf: this certificate if another one vouches for it, nothing if it is a root.
    pub(crate) behind_leaf: String,
    cert_pem: String,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl Root {
    /// Makes a new P-256 root for a trust domain.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn generate(trust_domain: &TrustDomain, ttl: Duration, clock: &Clock) -> Result<Self, CaError> {
        Self::generate_with(KeyType::default(), trust_domain, ttl, clock)
    }

    /// Makes a new root with a key of this kind; its intermediates get the same kind.
    ///
    /// # Errors
    /// If the certificate cannot be made.
    pub fn generate_with(
        key_type: KeyType,
        trust_domain: &TrustDomain,
        ttl: Duration,
        clock: &Clock,
    ) -> Result<Self, CaError> {
        let key = key::generate(key_type)?;
        let now = now(clock)?;
        let mut params = CertificateParams::default();
        let serial = serial()?;
        params.distinguished_name = name(trust_domain, "root", &serial);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(format!("spiffe://{trust_domain}"))?)];
        params.serial_number = Some(serial.to_vec().into());
        params.not_before = now - BACKDATE;
        params.not_after = after(now, ttl)?;
        let certificate = params.self_signed(&key)?;
        let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(|_| CaError::Certificate)?;
        let issuing = Issuing::new(&parsed, key, parsed.validity().not_after.to_datetime(), clock.clone())?;
        let cert_pem = certificate.pem();
        Ok(Self { issuing, trust_domain: trust_domain.clone(), key_type, behind_leaf: String::new(), cert_pem })
    }

    /// Reads a CA back: certificate and key in PEM.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_pem(cert_pem: &str, key_pem: &str, clock: &Clock) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(key_pem).map_err(CaError::Key)?;
        let (rest, block) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).map_err(|_| CaError::Certificate)?;
        if block.label != "CERTIFICATE" || rest.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Err(CaError::Certificate);
        }
        let (trailing, parsed) = X509Certificate::from_der(&block.contents).map_err(|_| CaError::Certificate)?;
        if !trailing.is_empty() {
            return Err(CaError::Certificate);
        }
        let signs = parsed.key_usage().ok().flatten().is_some_and(|usage| usage.value.key_cert_sign());
        if !parsed.is_ca() || !signs {
            return Err(CaError::NotCa);
        }
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CaError::KeyMismatch);
        }
        let not_after = parsed.validity().not_after.to_datetime();
        if not_after <= now(clock)? {
            return Err(CaError::Expired);
        }
        let trust_domain = trust_domain_of(&parsed)?;
        let is_root = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let behind_leaf = if is_root { String::new() } else { cert_pem.to_owned() };
        // A foreign root may have a key that no workload may have; what is made below it is ours.
        let key_type = csr::kind(parsed.public_key()).unwrap_or_default();
        let issuing = Issuing::new(&parsed, key, not_after, clock.clone())?;
        Ok(Self { issuing, trust_domain, key_type, behind_leaf, cert_pem: cert_pem.to_owned() })
    }

    /// The trust domain that a certificate in PEM names, which need not be ours.
    ///
    /// # Errors
    /// If it is no certificate, or names none.
    pub fn trust_domain_in(cert_pem: &str) -> Result<TrustDomain, CaError> {
        let (_, block) = x509_parser::pem::parse_x509_pem(cert_pem.as_bytes()).map_err(|_| CaError::Certificate)?;
        let (_, parsed) = X509Certificate::from_der(&block.contents).map_err(|_| CaError::Certificate)?;
        trust_domain_of(&parsed)
    }

    /// The SHA-256 of the certificate in hexadecimal.
    ///
    /// # Errors
    /// If it is no certificate.
    pub fn fingerprint(&self) -> Result<String, CaError> {
        let (_, block) =
            x509_parser::pem::parse_x509_pem(self.cert_pem.as_bytes()).map_err(|_| CaError::Certificate)?;
        Ok(crate::signer::anchor_of(&block.contents))
    }

    /// The certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, for its file.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuing.key().serialize_pem()
    }

    /// Whom this CA may name.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

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
