//! The leaf profile: an X.509-SVID for one workload.

use std::time::Duration;

use portcullis_identity::SpiffeId;
use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize, SanType,
};
use time::OffsetDateTime;

use crate::root::{BACKDATE, CaError, Root, after, serial};

/// Shortest lifetime of a leaf.
const MIN_TTL: Duration = Duration::from_secs(60);

/// Kind of a workload's key.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 4096 bits.
    Rsa4096,
    /// Ed25519; Istio's peers do not accept it.
    Ed25519,
}

impl KeyType {
    /// Every kind, by the name that the command line uses.
    pub const ALL: [(&'static str, Self); 5] = [
        ("ecdsa-p256", Self::EcdsaP256),
        ("ecdsa-p384", Self::EcdsaP384),
        ("rsa-2048", Self::Rsa2048),
        ("rsa-4096", Self::Rsa4096),
        ("ed25519", Self::Ed25519),
    ];

    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            Self::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        }
    }
}

/// A leaf with its key.
pub struct Issued {
    /// The chain in PEM, the leaf first.
    pub cert_chain_pem: String,
    /// The private key in PEM (PKCS#8).
    pub key_pem: String,
    /// When it ends, in seconds since 1970.
    pub not_after_unix: i64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("not_after_unix", &self.not_after_unix).finish_non_exhaustive()
    }
}

impl Root {
    /// Issues an X.509-SVID with a new key. It ends with the CA at the latest.
    ///
    /// # Errors
    /// If the ID is not this CA's to give, the lifetime is under a minute, or the certificate cannot be made.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration, key: KeyType) -> Result<Issued, CaError> {
        if id.trust_domain() != self.trust_domain {
            return Err(CaError::ForeignId { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        if id.path().is_empty() {
            return Err(CaError::NoPath(id.clone()));
        }
        if ttl < MIN_TTL {
            return Err(CaError::TooShort);
        }
        let key = key.generate()?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str())?)];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial()?);
        params.not_before = now - BACKDATE;
        params.not_after = after(now, ttl)?.min(self.not_after);
        let not_after_unix = params.not_after.unix_timestamp();
        let certificate = params.signed_by(&key, &self.issuer)?;
        let cert_chain_pem = certificate.pem() + &self.behind_leaf;
        Ok(Issued { cert_chain_pem, key_pem: key.serialize_pem(), not_after_unix })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::TrustDomain;
    use portcullis_identity::leaf::{Compat, Role, check};
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn root() -> Root {
        Root::generate(&TrustDomain::parse("example.org").unwrap(), Duration::from_secs(3600)).unwrap()
    }

    fn der(pem: &str) -> Vec<u8> {
        x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
    }

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://example.org/ns/a/sa/b").unwrap()
    }

    #[test]
    fn every_key_type_makes_an_svid_that_our_own_rules_accept() {
        let root = root();
        let root_der = der(root.cert_pem());
        let (_, root_cert) = X509Certificate::from_der(&root_der).unwrap();
        for (name, key) in KeyType::ALL {
            let issued = root.issue(&id(), Duration::from_secs(600), key).unwrap();
            let leaf = der(&issued.cert_chain_pem);
            for role in [Role::Client, Role::Server] {
                let checked = check(&leaf, Compat::default(), role).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(checked.id, id(), "{name}");
            }
            let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
            parsed.verify_signature(Some(root_cert.public_key())).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(parsed.subject().iter().next().is_none(), "{name}: empty subject");
            assert!(parsed.subject_alternative_name().unwrap().unwrap().critical, "{name}: critical SAN");
            assert!(parsed.key_usage().unwrap().unwrap().critical, "{name}: critical KU");
            assert!(!parsed.basic_constraints().unwrap().unwrap().value.ca, "{name}: CA:FALSE");
            assert_eq!(parsed.raw_serial().len(), 16, "{name}: 128-bit serial");
            let oids: Vec<String> = parsed.extensions().iter().map(|ext| ext.oid.to_id_string()).collect();
            assert!(oids.contains(&"2.5.29.35".to_owned()), "{name}: authorityKeyIdentifier");
        }
    }

    #[test]
    fn ttl_never_outlives_issuer() {
        let root = root();
        let issued = root.issue(&id(), Duration::from_secs(7200), KeyType::EcdsaP256).unwrap();
        assert!(issued.not_after_unix <= root.not_after.unix_timestamp());
        assert!(matches!(root.issue(&id(), Duration::from_secs(59), KeyType::EcdsaP256), Err(CaError::TooShort)));
    }

    #[test]
    fn foreign_and_bare_ids_are_refused() {
        let root = root();
        let foreign = SpiffeId::parse("spiffe://other.org/x").unwrap();
        assert!(matches!(root.issue(&foreign, MIN_TTL, KeyType::EcdsaP256), Err(CaError::ForeignId { .. })));
        let bare = SpiffeId::parse("spiffe://example.org").unwrap();
        assert!(matches!(root.issue(&bare, MIN_TTL, KeyType::EcdsaP256), Err(CaError::NoPath(_))));
    }

    #[test]
    fn a_root_is_read_back_and_only_with_its_own_key() {
        let (one, other) = (root(), root());
        let read = Root::from_pem(one.cert_pem(), &one.key_pem()).unwrap();
        assert_eq!(read.trust_domain(), one.trust_domain());
        let issued = read.issue(&id(), MIN_TTL, KeyType::EcdsaP256).unwrap();
        let root_der = der(one.cert_pem());
        let leaf = der(&issued.cert_chain_pem);
        let (_, root_cert) = X509Certificate::from_der(&root_der).unwrap();
        X509Certificate::from_der(&leaf).unwrap().1.verify_signature(Some(root_cert.public_key())).unwrap();
        assert!(matches!(Root::from_pem(one.cert_pem(), &other.key_pem()), Err(CaError::KeyMismatch)));
        assert!(matches!(Root::from_pem(&issued.cert_chain_pem, &issued.key_pem), Err(CaError::NotCa)));
        assert!(matches!(Root::from_pem("x", &one.key_pem()), Err(CaError::Certificate)));
    }
}
