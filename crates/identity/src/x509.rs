//! One strict reading of a certificate, shared by leaf and signer checks.
//!
//! `x509-parser` is lenient where leniency has led to vulnerabilities: it keeps a known extension that it could not read as a
//! `ParseError` value, drops bytes after an extension's value, leaves duplicates to the caller, and turns an alternative
//! name that it refuses into `Invalid`. Everything here turns those into errors.

use std::collections::HashSet;

use x509_parser::asn1_rs::{Any, Oid, Tag};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{
    BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, X509Extension,
};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_NAME_CONSTRAINTS, OID_X509_EXT_SUBJECT_ALT_NAME,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::{SubjectPublicKeyInfo, X509Version};

use crate::svid::{KeyError, SvidError};

/// The longest certificate that is parsed; a whole chain may not be longer either.
const MAX_CERTIFICATE_LEN: usize = 64 * 1024;

/// Context tag of `uniformResourceIdentifier` in a GeneralName (RFC 5280 4.2.1.6).
const TAG_URI: u32 = 6;

/// The critical extensions that are understood. webpki checks name constraints; the others are checked here and there.
const UNDERSTOOD: [Oid<'static>; 5] = [
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_NAME_CONSTRAINTS,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
];

/// A certificate that was read strictly: v3, nothing after it, no duplicate, unreadable or unknown critical extension.
pub(crate) struct Strict<'a> {
    cert: X509Certificate<'a>,
}

impl<'a> Strict<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, SvidError> {
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(SvidError::Der("longer than 64 KiB"));
        }
        let (rest, cert) = X509Certificate::from_der(der).map_err(|_| SvidError::Der("it cannot be parsed"))?;
        if !rest.is_empty() {
            return Err(SvidError::Der("there are bytes after its end"));
        }
        if cert.version() != X509Version::V3 {
            return Err(SvidError::Der("it is not of version 3"));
        }
        let mut seen = HashSet::new();
        for extension in cert.extensions() {
            if !seen.insert(&extension.oid) {
                return Err(SvidError::DuplicateExtension(extension.oid.to_id_string()));
            }
            if extension.parsed_extension().error().is_some() {
                return Err(malformed(extension));
            }
            if extension.critical && !UNDERSTOOD.contains(&extension.oid) {
                return Err(SvidError::CriticalExtension(extension.oid.to_id_string()));
            }
        }
        Ok(Self { cert })
    }

    pub(crate) const fn cert(&self) -> &X509Certificate<'a> {
        &self.cert
    }

    /// The extension with this OID; `parse` made sure that there is at most one.
    fn extension(&self, oid: &Oid<'_>) -> Option<&X509Extension<'a>> {
        self.cert.extensions().iter().find(|extension| extension.oid == *oid)
    }

    pub(crate) fn is_ca(&self) -> Result<bool, SvidError> {
        Ok(self.basic_constraints()?.is_some_and(|basic| basic.ca))
    }

    pub(crate) fn basic_constraints(&self) -> Result<Option<BasicConstraints>, SvidError> {
        self.extension(&OID_X509_EXT_BASIC_CONSTRAINTS).map(whole).transpose()
    }

    /// Key usage, and whether the extension is critical.
    pub(crate) fn key_usage(&self) -> Result<Option<(KeyUsage, bool)>, SvidError> {
        let Some(extension) = self.extension(&OID_X509_EXT_KEY_USAGE) else {
            return Ok(None);
        };
        Ok(Some((whole(extension)?, extension.critical)))
    }

    pub(crate) fn extended_key_usage(&self) -> Result<Option<ExtendedKeyUsage<'a>>, SvidError> {
        self.extension(&OID_X509_EXT_EXTENDED_KEY_USAGE).map(whole).transpose()
    }

    pub(crate) fn extended_key_usage_is_critical(&self) -> bool {
        self.extension(&OID_X509_EXT_EXTENDED_KEY_USAGE).is_some_and(|extension| extension.critical)
    }

    /// The raw content of every URI subject alternative name, counted by tag before any of them is read.
    pub(crate) fn uris(&self) -> Result<Vec<&'a [u8]>, SvidError> {
        let Some(extension) = self.extension(&OID_X509_EXT_SUBJECT_ALT_NAME) else {
            return Ok(Vec::new());
        };
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            return Err(malformed(extension));
        };
        // A name that cannot be read is refused, except a URI: that one is counted, and then fails as an ID.
        let is_bad = |name: &GeneralName<'_>| matches!(name, GeneralName::Invalid(tag, _) if tag.0 != TAG_URI);
        if names.general_names.iter().any(is_bad) {
            return Err(malformed(extension));
        }
        raw_uris(extension.value).ok_or_else(|| malformed(extension))
    }

    /// Refuses weak keys and key types that are not supported.
    pub(crate) fn check_key(&self) -> Result<(), SvidError> {
        Ok(check_key(self.cert.public_key())?)
    }
}

fn malformed(extension: &X509Extension<'_>) -> SvidError {
    SvidError::Extension(extension.oid.to_id_string())
}

/// Reads an extension's value again, this time to its last byte.
fn whole<'a, T: FromDer<'a, x509_parser::error::X509Error>>(extension: &X509Extension<'a>) -> Result<T, SvidError> {
    match T::from_der(extension.value) {
        Ok(([], value)) => Ok(value),
        _ => Err(malformed(extension)),
    }
}

/// Walks the names by tag number alone. The class is not checked: the parser has refused names of another class, and
/// should one get here, counting it as well can only lead to a refusal. `None` when the bytes are not DER to the end.
fn raw_uris(value: &[u8]) -> Option<Vec<&[u8]>> {
    let ([], sequence) = Any::from_der(value).ok()? else {
        return None;
    };
    let mut rest = sequence.data;
    let mut uris = Vec::new();
    while !rest.is_empty() {
        let (after, name) = Any::from_der(rest).ok()?;
        if name.header.tag() == Tag(TAG_URI) {
            // A string in pieces is BER, not DER.
            if name.header.is_constructed() {
                return None;
            }
            uris.push(name.data);
        }
        rest = after;
    }
    Some(uris)
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), KeyError> {
    let algorithm = &key.algorithm.algorithm;
    if *algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        return match curve {
            Some(curve) if curve == OID_EC_P256 || curve == OID_NIST_EC_P384 => Ok(()),
            _ => Err(KeyError::Unsupported),
        };
    }
    if *algorithm != OID_PKCS1_RSAENCRYPTION {
        return Err(KeyError::Unsupported);
    }
    match rsa_bits(key) {
        Some(bits @ ..2048) => Err(KeyError::Weak { bits }),
        Some(2048..=8192) => Ok(()),
        _ => Err(KeyError::Unsupported),
    }
}

/// The length of the modulus of an RSA key; `None` if it is none.
pub(crate) fn rsa_bits(key: &SubjectPublicKeyInfo<'_>) -> Option<usize> {
    let Ok(([], rsa)) = RSAPublicKey::from_der(&key.subject_public_key.data) else { return None };
    Some(bits(rsa.modulus))
}

/// The length of a big-endian number in bits.
fn bits(number: &[u8]) -> usize {
    let mut significant = number.iter().skip_while(|&&byte| byte == 0);
    let Some(first) = significant.next() else {
        return 0;
    };
    let top: usize = match first.checked_ilog2() {
        Some(log) => usize::try_from(log).unwrap_or(0).saturating_add(1),
        None => 0,
    };
    significant.count().saturating_mul(8).saturating_add(top)
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn the_length_of_a_number_does_not_depend_on_how_it_is_written() {
        assert_eq!([bits(&[]), bits(&[0]), bits(&[0, 0])], [0, 0, 0]);
        assert_eq!([bits(&[1]), bits(&[0, 1]), bits(&[0x80]), bits(&[0, 0x80])], [1, 1, 8, 8]);
        assert_eq!([bits(&[1, 0]), bits(&[0, 0x7f, 0xff])], [9, 15]);
    }
}
