//! Kinds of workload keys: which may be certified, and how they are written in a certificate.

use rcgen::{KeyPair, RsaKeySize};

use crate::der::{self, NULL, oid};

/// Kind of a workload's key.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
    /// Ed25519; Istio's peers do not accept it.
    Ed25519,
}

impl KeyType {
    /// Every kind, by the name that the command line and files use.
    pub const ALL: [(&'static str, Self); 6] = [
        ("ecdsa-p256", Self::EcdsaP256),
        ("ecdsa-p384", Self::EcdsaP384),
        ("rsa-2048", Self::Rsa2048),
        ("rsa-3072", Self::Rsa3072),
        ("rsa-4096", Self::Rsa4096),
        ("ed25519", Self::Ed25519),
    ];

    /// Its name on the command line and in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::EcdsaP384 => "ecdsa-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa3072 => "rsa-3072",
            Self::Rsa4096 => "rsa-4096",
            Self::Ed25519 => "ed25519",
        }
    }

    /// Why somebody should think twice about it.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Ed25519 => Some("Envoy, and with it Istio's sidecars, does not accept Ed25519 certificates"),
            _ => None,
        }
    }

    pub(crate) fn generate(self) -> Result<KeyPair, rcgen::Error> {
        let rsa = |size| KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size);
        match self {
            Self::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            Self::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            Self::Rsa2048 => rsa(RsaKeySize::_2048),
            Self::Rsa3072 => rsa(RsaKeySize::_3072),
            Self::Rsa4096 => rsa(RsaKeySize::_4096),
            Self::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        }
    }

    /// A SubjectPublicKeyInfo with this kind's algorithm, in the one form that RFC 3279, 5480 and 8410 give it.
    pub(crate) fn spki(self, key: &[u8]) -> Vec<u8> {
        let algorithm: &[&[u8]] = match self {
            Self::EcdsaP256 => &[oid::EC_PUBLIC_KEY, oid::P256],
            Self::EcdsaP384 => &[oid::EC_PUBLIC_KEY, oid::P384],
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => &[oid::RSA, NULL],
            Self::Ed25519 => &[oid::ED25519],
        };
        der::sequence(&[&der::sequence(algorithm), &der::bit_string(key)])
    }
}

#[cfg(test)]
mod tests {
    use rcgen::PublicKeyData as _;

    use super::*;

    #[test]
    fn names_and_key_infos_are_those_of_the_table_and_the_library() {
        for (name, kind) in KeyType::ALL {
            assert_eq!(kind.name(), name);
            let pair = kind.generate().unwrap();
            assert_eq!(kind.spki(pair.der_bytes()), pair.subject_public_key_info(), "{name}");
        }
    }
}
