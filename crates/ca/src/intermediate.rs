//! The intermediate: the online CA below an offline root.

use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

use crate::error::CaError;
use crate::fields::{BACKDATE, after, name, serial};
use crate::key;
use crate::root::Root;

/// A new intermediate with its key, for its files. It can sign leaves and no further CA (pathLenConstraint 0).
pub struct Intermediate {
    cert_pem: String,
    key: KeyPair,
}

impl std::fmt::Debug for Intermediate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intermediate").finish_non_exhaustive()
    }
}

impl Intermediate {
    /// The certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key, for its file.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl Root {
    /// Signs a new intermediate, whose key is of the kind of the root's. It ends with the root at the latest.
    ///
    /// # Errors
    /// If this is no root, or the certificate cannot be made.
    pub fn intermediate(&self, ttl: Duration) -> Result<Intermediate, CaError> {
        if !self.issuer_chain.is_empty() {
            return Err(CaError::NotRoot);
        }
        let key = key::generate(self.key_type)?;
        let now = self.issuer_key.now()?;
        let mut params = CertificateParams::default();
        let serial = serial()?;
        params.distinguished_name = name(&self.trust_domain, "intermediate", &serial);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(format!("spiffe://{}", self.trust_domain))?)];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.to_vec().into());
        params.not_before = now - BACKDATE;
        params.not_after = after(now, ttl)?.min(self.issuer_key.not_after);
        let issuer = Issuer::from_ca_cert_pem(self.cert_pem(), self.issuer_key.key())?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Intermediate { cert_pem: certificate.pem(), key })
    }
}
