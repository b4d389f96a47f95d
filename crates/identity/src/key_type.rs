//! The kinds of keys that a workload or a certificate authority may have.

use std::fmt;

/// The public keys that a certificate may have, for error texts.
pub const ACCEPTED_KEYS: &str = "ECDSA P-256 or P-384, Ed25519, or RSA with 2048 to 8192 bits";
/// The keys for which a CA issues certificates ([`KeyType::ALL`]), for error texts.
pub const ISSUED_KEYS: &str = "ECDSA P-256 or P-384, Ed25519, or RSA with 2048, 3072 or 4096 bits";

/// A kind of key, as the command line, files and the audit name it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeyType {
    /// ECDSA on P-256: what every peer accepts, and fast.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// Ed25519, which Istio's proxies do not accept.
    Ed25519,
}

impl KeyType {
    /// Every kind, by its name.
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

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
    }

    /// RSA with so many bits. Fewer than 2048 are weak (NIST SP 800-131A), and other sizes are not made.
    #[must_use]
    pub const fn rsa(bits: i64) -> Option<Self> {
        match bits {
            2048 => Some(Self::Rsa2048),
            3072 => Some(Self::Rsa3072),
            4096 => Some(Self::Rsa4096),
            _ => None,
        }
    }

    /// The warning for a kind that is usable but not recommended.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Ed25519 => Some(
                "Envoy, and with it Istio's sidecars, does not accept Ed25519 certificates; with such peers take ecdsa-p256",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_one_name_and_one_alone_a_warning() {
        for (name, kind) in KeyType::ALL {
            assert_eq!((kind.name(), kind.to_string().as_str(), KeyType::named(name)), (name, name, Some(kind)));
            assert_eq!(kind.warning().is_some(), kind == KeyType::Ed25519);
        }
        assert_eq!((KeyType::named("dsa"), KeyType::named("")), (None, None));
    }

    #[test]
    fn rsa_has_three_sizes() {
        let sizes: Vec<_> = (0..=16_384).filter_map(KeyType::rsa).collect();
        assert_eq!(sizes, [KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096]);
        assert_eq!((KeyType::rsa(-2048), KeyType::rsa(1024)), (None, None));
    }
}
