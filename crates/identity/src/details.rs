//! Everything of a certificate that tells an operator what it may be used for.

use x509_parser::extensions::{ExtendedKeyUsage, KeyUsage};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::summary::{Summary, summary};
use crate::svid::SvidError;
use crate::x509::{Strict, rsa_bits};

/// What a certificate says of itself. Nothing of it is checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Details {
    /// Names, serial number and validity.
    pub summary: Summary,
    /// The URIs among the subject alternative names, in order; bytes that are no text are replaced.
    pub uris: Vec<String>,
    /// The key: `ecdsa-p256`, `rsa-2048`, or the identifier of its algorithm.
    pub key: String,
    /// Key usage, in the words of RFC 5280; `None` if the extension is absent.
    pub key_usage: Option<Usages>,
    /// Extended key usage, likewise; identifiers of purposes that have no name here.
    pub extended_key_usage: Option<Usages>,
    /// Basic constraints; `None` if the extension is absent.
    pub basic_constraints: Option<Constraints>,
}

/// What an extension allows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Usages {
    /// Whether the extension is critical.
    pub critical: bool,
    /// The uses.
    pub uses: Vec<String>,
}

/// Basic constraints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Constraints {
    /// cA.
    pub ca: bool,
    /// pathLenConstraint.
    pub path_len: Option<u32>,
}

/// Reads the facts of a certificate; it is not checked for any use.
///
/// # Errors
/// If it is not a certificate that can be read strictly.
pub fn details(der: &[u8]) -> Result<Details, SvidError> {
    let strict = Strict::parse(der)?;
    let uris = strict.uris()?.into_iter().map(|uri| String::from_utf8_lossy(uri).into_owned()).collect();
    let key_usage = strict.key_usage()?.map(|(usage, critical)| Usages { critical, uses: key_uses(&usage) });
    let extended_key_usage = strict
        .extended_key_usage()?
        .map(|usage| Usages { critical: strict.extended_key_usage_is_critical(), uses: purposes(&usage) });
    let basic_constraints =
        strict.basic_constraints()?.map(|basic| Constraints { ca: basic.ca, path_len: basic.path_len_constraint });
    Ok(Details {
        summary: summary(der)?,
        uris,
        key: key(strict.cert().public_key()),
        key_usage,
        extended_key_usage,
        basic_constraints,
    })
}

fn key_uses(usage: &KeyUsage) -> Vec<String> {
    let all = [
        (usage.digital_signature(), "digitalSignature"),
        (usage.non_repudiation(), "nonRepudiation"),
        (usage.key_encipherment(), "keyEncipherment"),
        (usage.data_encipherment(), "dataEncipherment"),
        (usage.key_agreement(), "keyAgreement"),
        (usage.key_cert_sign(), "keyCertSign"),
        (usage.crl_sign(), "cRLSign"),
        (usage.encipher_only(), "encipherOnly"),
        (usage.decipher_only(), "decipherOnly"),
    ];
    all.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned()).collect()
}

fn purposes(usage: &ExtendedKeyUsage<'_>) -> Vec<String> {
    let named = [
        (usage.any, "any"),
        (usage.server_auth, "serverAuth"),
        (usage.client_auth, "clientAuth"),
        (usage.code_signing, "codeSigning"),
        (usage.email_protection, "emailProtection"),
        (usage.time_stamping, "timeStamping"),
        (usage.ocsp_signing, "OCSPSigning"),
    ];
    let named = named.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name.to_owned());
    named.chain(usage.other.iter().map(|oid| oid.to_id_string())).collect()
}

fn key(key: &SubjectPublicKeyInfo<'_>) -> String {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return "ed25519".to_owned();
    }
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        return rsa_bits(key).map_or_else(|| "rsa".to_owned(), |bits| format!("rsa-{bits}"));
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 => "ecdsa-p256".to_owned(),
            Some(curve) if curve == OID_NIST_EC_P384 => "ecdsa-p384".to_owned(),
            Some(curve) => format!("ecdsa {}", curve.to_id_string()),
            None => "ecdsa".to_owned(),
        };
    }
    algorithm.to_id_string()
}
