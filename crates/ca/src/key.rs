//! Key types: generation, and their encoding in a certificate.

use portcullis_der::{self as der, NULL, oid};
use portcullis_identity::KeyType;
use rcgen::{KeyPair, RsaKeySize};

/// Generates a key of this type. RSA takes up to seconds.
pub(crate) fn generate(kind: KeyType) -> Result<KeyPair, rcgen::Error> {
    let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
    match kind {
        KeyType::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => rsa(RsaKeySize::_2048),
        KeyType::Rsa3072 => rsa(RsaKeySize::_3072),
        KeyType::Rsa4096 => rsa(RsaKeySize::_4096),
        KeyType::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
    }
}

/// Encodes a SubjectPublicKeyInfo with this type's algorithm as RFC 3279, 5480 and 8410 define it.
pub(crate) fn spki(kind: KeyType, key: &[u8]) -> Vec<u8> {
    let algorithm: &[&[u8]] = match kind {
        KeyType::EcdsaP256 => &[oid::EC_PUBLIC_KEY, oid::P256],
        KeyType::EcdsaP384 => &[oid::EC_PUBLIC_KEY, oid::P384],
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => &[oid::RSA, NULL],
        KeyType::Ed25519 => &[oid::ED25519],
    };
    der::sequence(&[&der::sequence(algorithm), &der::bit_string(key)])
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    #[test]
    fn key_infos_are_those_of_the_library() {
        for (name, kind) in KeyType::ALL {
            let pair = generate(kind).unwrap();
            assert_eq!(spki(kind, pair.der_bytes()), pair.subject_public_key_info(), "{name}");
        }
    }
}
