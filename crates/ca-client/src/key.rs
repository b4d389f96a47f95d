//! Private keys, which never leave this process, and their certificate signing requests.

use portcullis_identity::{KeyType, SpiffeId};
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, RsaKeySize, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::FetchError;

/// A new key and the request to certify it.
pub(crate) struct KeyAndCsr {
    /// PKCS#8; wiped when dropped.
    pub(crate) key: Zeroizing<PrivateKeyDer<'static>>,
    /// PKCS#10 in PEM.
    pub(crate) csr: String,
}

impl KeyAndCsr {
    /// Generates a key of this type and a request for our own ID only. RSA takes up to seconds.
    pub(crate) fn new(kind: KeyType, id: &SpiffeId) -> Result<Self, FetchError> {
        make(kind, id).map_err(|error| FetchError::Local {
            reason: "key",
            message: format!("cannot make a key and a request to certify it: {error}"),
            missing: false,
        })
    }
}

fn make(kind: KeyType, id: &SpiffeId) -> Result<KeyAndCsr, rcgen::Error> {
    let pair = match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    }?;
    // Wiped when dropped, as the copy of it is.
    let pair = Zeroizing::new(pair);
    let mut wanted = CertificateParams::default();
    wanted.distinguished_name = DistinguishedName::new();
    wanted.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id.as_str())?)];
    let csr = wanted.serialize_request(&*pair)?.pem()?;
    Ok(KeyAndCsr { key: Zeroizing::new(PrivatePkcs8KeyDer::from(pair.serialize_der()).into()), csr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_a_new_key_and_asks_for_our_id_alone() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
        for (_, kind) in KeyType::ALL {
            let [one, two] = [(); 2].map(|()| KeyAndCsr::new(kind, &id).unwrap());
            assert_ne!(one.key.secret_der(), two.key.secret_der(), "{kind}");
            let text = portcullis_testkit::openssl(["req", "-noout", "-verify", "-text"], one.csr.as_bytes());
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("URI:spiffe://cluster.local/ns/shop/sa/cart"), "{text}");
            assert_eq!(text.matches("X509v3").count(), 1, "{text}");
            let subject = text.lines().find(|line| line.trim_start().starts_with("Subject:")).unwrap();
            assert_eq!(subject.trim(), "Subject:", "{text}");
        }
    }
}
