//! Reads a certificate signing request and keeps only its public key.
//!
//! A request does not authenticate its sender. CAs that copied requested names, extensions and attributes have signed
//! certificates for other identities, so [`CertifiedPublicKey`] has no field for them.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use portcullis_identity::{ISSUED_KEYS, KeyType};
use x509_parser::asn1_rs::Oid;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_PKCS1_SHA256WITHRSA,
    OID_PKCS1_SHA384WITHRSA, OID_PKCS1_SHA512WITHRSA, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384,
    OID_SIG_ECDSA_WITH_SHA512, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use crate::key;

/// The longest accepted request, in bytes of PEM or DER. One with an RSA key of 4096 bits has 1,800.
pub const MAX_CSR_LEN: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_CSR_LEN`].
    #[error("the request has {0} bytes; at most {MAX_CSR_LEN} are read")]
    TooLong(usize),
    /// Not one PEM block with the label of a request.
    #[error("the request is not exactly one PEM block CERTIFICATE REQUEST")]
    Pem,
    /// Not PKCS#10, or it has trailing data.
    #[error("the request is not PKCS#10 in DER")]
    Der,
    /// RSA with too few bits.
    #[error("the RSA key has {bits} bits; at least 2048 are needed")]
    WeakKey {
        /// The size of the modulus.
        bits: usize,
    },
    /// A key type that this CA does not certify.
    #[error("the kind of key is not accepted; use {keys}", keys = ISSUED_KEYS)]
    KeyKind,
    /// The signature algorithm does not match the key, or is weak.
    #[error(
        "the request is signed with an algorithm that is not accepted for its key; use SHA-256, SHA-384 or SHA-512"
    )]
    SignatureAlgorithm,
    /// The proof of possession failed.
    #[error("the signature of the request is wrong: it was not made with the key in it")]
    Signature,
}

impl CsrError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::TooLong(_) => "csr-too-long",
            Self::Pem | Self::Der => "csr-syntax",
            Self::WeakKey { .. } => "weak-key",
            Self::KeyKind => "key-type",
            Self::SignatureAlgorithm => "csr-signature-algorithm",
            Self::Signature => "csr-signature",
        }
    }
}

/// A public key with proof of possession: its private key signed the request. It can only be built from a verified request.
#[derive(Clone, Eq, PartialEq)]
pub struct CertifiedPublicKey {
    kind: KeyType,
    spki: Vec<u8>,
}

impl CertifiedPublicKey {
    /// Reads a request in PEM and verifies its signature.
    ///
    /// # Errors
    /// If it is too long, malformed, or its signature or key is not accepted.
    pub fn from_csr(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > MAX_CSR_LEN {
            return Err(CsrError::TooLong(pem.len()));
        }
        let (rest, block) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| CsrError::Pem)?;
        let labels = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];
        if !labels.contains(&block.label.as_str()) || rest.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Err(CsrError::Pem);
        }
        Self::from_csr_der(&block.contents)
    }

    /// Reads a request in DER and verifies its signature.
    ///
    /// # Errors
    /// If it is too long, malformed, or its signature or key is not accepted.
    pub fn from_csr_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_CSR_LEN {
            return Err(CsrError::TooLong(der.len()));
        }
        let (behind, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Der)?;
        let info = &request.certification_request_info;
        if !behind.is_empty() || info.version != X509Version(0) {
            return Err(CsrError::Der);
        }
        let kind = kind(&info.subject_pki)?;
        let bytes: &[u8] = &info.subject_pki.subject_public_key.data;
        let algorithm = verification(kind, &request.signature_algorithm.algorithm)?;
        UnparsedPublicKey::new(algorithm, bytes)
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| CsrError::Signature)?;
        Ok(Self { kind, spki: key::spki(kind, bytes) })
    }

    /// Which kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyType {
        self.kind
    }

    /// SHA-256 of its SubjectPublicKeyInfo.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        KeyHash::of(&self.spki)
    }

    /// Its SubjectPublicKeyInfo in DER, written anew.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }
}

impl fmt::Debug for CertifiedPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertifiedPublicKey").field("kind", &self.kind).field("hash", &self.hash()).finish()
    }
}

/// SHA-256 of a SubjectPublicKeyInfo. The CA stores keys in this form.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    pub(crate) fn of(spki: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Self(hash)
    }

    /// The key of a certificate, if that can be read.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).ok()?;
        Some(Self::of(certificate.public_key().raw))
    }

    /// Reads what [`fmt::Display`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        crate::hex::parse(text).map(Self)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::hex::text(&self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({self})")
    }
}

/// The type of a key, if it may be certified. Only uncompressed points are accepted, so that each key has one encoding.
pub(crate) fn kind(key: &SubjectPublicKeyInfo<'_>) -> Result<KeyType, CsrError> {
    let algorithm = &key.algorithm.algorithm;
    let bytes = &key.subject_public_key.data;
    if *algorithm == OID_SIG_ED25519 {
        return if bytes.len() == 32 { Ok(KeyType::Ed25519) } else { Err(CsrError::KeyKind) };
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match (curve, bytes.first(), bytes.len()) {
            (Some(curve), Some(4), 65) if curve == OID_EC_P256 => Ok(KeyType::EcdsaP256),
            (Some(curve), Some(4), 97) if curve == OID_NIST_EC_P384 => Ok(KeyType::EcdsaP384),
            _ => Err(CsrError::KeyKind),
        };
    }
    if *algorithm != OID_PKCS1_RSAENCRYPTION {
        return Err(CsrError::KeyKind);
    }
    let Ok(([], rsa)) = RSAPublicKey::from_der(bytes) else {
        return Err(CsrError::KeyKind);
    };
    match bits(rsa.modulus) {
        bits @ ..2048 => Err(CsrError::WeakKey { bits }),
        2048 => Ok(KeyType::Rsa2048),
        3072 => Ok(KeyType::Rsa3072),
        4096 => Ok(KeyType::Rsa4096),
        _ => Err(CsrError::KeyKind),
    }
}

/// The length of a big-endian number in bits.
fn bits(number: &[u8]) -> usize {
    let mut significant = number.iter().skip_while(|byte| **byte == 0);
    let Some(first) = significant.next() else {
        return 0;
    };
    let top = 8_usize.saturating_sub(usize::try_from(first.leading_zeros()).unwrap_or_default());
    significant.count().saturating_mul(8).saturating_add(top)
}

fn verification(kind: KeyType, signature: &Oid<'_>) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    let among = |known: [(Oid<'static>, &'static dyn VerificationAlgorithm); 3]| {
        known.into_iter().find(|(oid, _)| oid == signature).map(|(_, algorithm)| algorithm)
    };
    let found = match kind {
        KeyType::EcdsaP256 => among([
            (OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P256_SHA256_ASN1),
            (OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P256_SHA384_ASN1),
            (OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P256_SHA512_ASN1),
        ]),
        KeyType::EcdsaP384 => among([
            (OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P384_SHA256_ASN1),
            (OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P384_SHA384_ASN1),
            (OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P384_SHA512_ASN1),
        ]),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => among([
            (OID_PKCS1_SHA256WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA256),
            (OID_PKCS1_SHA384WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA384),
            (OID_PKCS1_SHA512WITHRSA, &signature::RSA_PKCS1_2048_8192_SHA512),
        ]),
        KeyType::Ed25519 if *signature == OID_SIG_ED25519 => {
            let ed25519: &'static dyn VerificationAlgorithm = &signature::ED25519;
            Some(ed25519)
        }
        KeyType::Ed25519 => None,
    };
    found.ok_or(CsrError::SignatureAlgorithm)
}

#[cfg(test)]
mod tests;
