//! Issues a key and its X.509-SVID by hand, from a CA in a folder.

use std::time::Duration;

use portcullis_identity::{KeyType, SpiffeId};
use rcgen::PublicKeyData as _;

use crate::error::CaError;
use crate::key;
use crate::leaf::MIN_TTL;
use crate::root::Root;

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
    /// Issues an X.509-SVID with a new key. It never outlives the CA.
    ///
    /// # Errors
    /// If the ID does not belong to this CA's trust domain, the lifetime is under a minute, or the certificate cannot be made.
    pub fn issue(&self, id: &SpiffeId, ttl: Duration, kind: KeyType) -> Result<Issued, CaError> {
        if id.trust_domain() != self.trust_domain {
            return Err(CaError::ForeignId { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        if id.path().is_empty() {
            return Err(CaError::NoPath(id.clone()));
        }
        if ttl < MIN_TTL {
            return Err(CaError::TooShort);
        }
        let key = key::generate(kind)?;
        let leaf = self.issuer_key.workload(id, &key.subject_public_key_info(), ttl)?;
        let cert_chain_pem = leaf.pem() + &self.issuer_chain;
        Ok(Issued { cert_chain_pem, key_pem: key.serialize_pem(), not_after_unix: leaf.not_after_unix })
    }
}

#[cfg(test)]
mod tests {
    use portcullis_identity::TrustDomain;
    use portcullis_identity::leaf::{Compat, Role, check};
    use portcullis_tls::Clock;
    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;

    fn root() -> Root {
        Root::generate(&TrustDomain::parse("example.org").unwrap(), Duration::from_secs(3600), &Clock::system())
            .unwrap()
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
        assert!(issued.not_after_unix <= root.issuer_key.not_after.unix_timestamp());
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
        let read = Root::from_pem(one.cert_pem(), &one.key_pem(), &Clock::system()).unwrap();
        assert_eq!(read.trust_domain(), one.trust_domain());
        let issued = read.issue(&id(), MIN_TTL, KeyType::EcdsaP256).unwrap();
        let root_der = der(one.cert_pem());
        let leaf = der(&issued.cert_chain_pem);
        let (_, root_cert) = X509Certificate::from_der(&root_der).unwrap();
        X509Certificate::from_der(&leaf).unwrap().1.verify_signature(Some(root_cert.public_key())).unwrap();
        assert!(matches!(
            Root::from_pem(one.cert_pem(), &other.key_pem(), &Clock::system()),
            Err(CaError::KeyMismatch)
        ));
        assert!(matches!(
            Root::from_pem(&issued.cert_chain_pem, &issued.key_pem, &Clock::system()),
            Err(CaError::NotCa)
        ));
        assert!(matches!(Root::from_pem("x", &one.key_pem(), &Clock::system()), Err(CaError::Certificate)));
    }
}
