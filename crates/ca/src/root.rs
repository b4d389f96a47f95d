//! The root CA: generated once, then read from its files.

use std::time::Duration;

use portcullis_identity::{KeyType, TrustDomain};
use portcullis_tls::Clock;
use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::CaError;
use crate::fields::{BACKDATE, after, anchor_of, name, now, serial, trust_domain_of};
use crate::leaf::IssuerKey;
use crate::{csr, key};

/// A root with its key; read back from files, it may also be a CA below one.
pub struct Root {
    pub(crate) issuer_key: IssuerKey,
    pub(crate) trust_domain: TrustDomain,
    /// Its intermediates use the same key type.
    pub(crate) key_type: KeyType,
    /// The chain that follows a leaf: this certificate if it is an intermediate, empty if it is a root.
    pub(crate) issuer_chain: String,
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
        let issuer_key = IssuerKey::new(&parsed, key, parsed.validity().not_after.to_datetime(), clock.clone())?;
        let cert_pem = certificate.pem();
        Ok(Self { issuer_key, trust_domain: trust_domain.clone(), key_type, issuer_chain: String::new(), cert_pem })
    }

    /// Reads a CA back: certificate and key in PEM.
    ///
    /// # Errors
    /// If certificate or key cannot be read, do not match, or the certificate is not a CA of a trust domain.
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
        let issuer_chain = if is_root { String::new() } else { cert_pem.to_owned() };
        // An external root may have a key type that we do not issue for; its intermediates use the default.
        let key_type = csr::kind(parsed.public_key()).unwrap_or_default();
        let issuer_key = IssuerKey::new(&parsed, key, not_after, clock.clone())?;
        Ok(Self { issuer_key, trust_domain, key_type, issuer_chain, cert_pem: cert_pem.to_owned() })
    }

    /// The trust domain in a PEM certificate. It may differ from this CA's.
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
        Ok(anchor_of(&block.contents))
    }

    /// The certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, for its file.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer_key.key().serialize_pem()
    }

    /// The trust domain that this CA issues for.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}
