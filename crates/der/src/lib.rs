//! The DER of X.509: values, extensions and times of certificates that we write, and a splitter for certificates that
//! follow each other.
//!
//! Certificates are put together here and not by a library so that an issuer's name is copied byte for byte from the CA's
//! own certificate: a library that parses a name and writes it again loses repeated attributes (`DC=org, DC=example`) and
//! string types, and what it then signs leads to no issuer.

mod split;

pub use split::{MAX_CERTIFICATES, certificates};
use time::OffsetDateTime;

/// Tags of X.690 8, and the two context tags of a TBSCertificate.
#[allow(missing_docs, reason = "they are named as in X.690")]
pub mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const UTF8_STRING: u8 = 0x0c;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    pub const SET: u8 = 0x31;
    /// `[0] EXPLICIT`: the version.
    pub const VERSION: u8 = 0xa0;
    /// `[3] EXPLICIT`: the extensions.
    pub const EXTENSIONS: u8 = 0xa3;
}

/// Object identifiers, encoded with their tag and length.
#[allow(missing_docs, reason = "they are named as in RFC 5280, 5480, 8017 and 8410")]
pub mod oid {
    pub const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    pub const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
    pub const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    pub const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
    pub const ECDSA_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    pub const ECDSA_SHA384: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
    pub const RSA_SHA256: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    pub const SUBJECT_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0e];
    pub const KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0f];
    pub const SUBJECT_ALT_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x11];
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
    pub const AUTHORITY_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];
    pub const EXTENDED_KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x25];
    pub const SERVER_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
    pub const CLIENT_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
}

/// `NULL`.
pub const NULL: &[u8] = &[0x05, 0x00];

/// A value with its tag and length.
#[must_use]
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = Vec::with_capacity(length.saturating_add(6));
    der.push(tag);
    match u8::try_from(length) {
        Ok(short @ ..0x80) => der.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let significant: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
            // At most eight bytes, so that it fits beside the flag.
            der.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
            der.extend(significant);
        }
    }
    for part in parts {
        der.extend_from_slice(part);
    }
    der
}

/// A SEQUENCE of values.
#[must_use]
pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(tag::SEQUENCE, parts)
}

/// A bit string that ends with a whole byte.
#[must_use]
pub fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(tag::BIT_STRING, &[&[0], bytes])
}

/// One extension.
#[must_use]
pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let flag: &[u8] = if critical { &[tag::BOOLEAN, 1, 0xff] } else { &[] };
    sequence(&[id, flag, &tlv(tag::OCTET_STRING, &[value])])
}

/// A time as RFC 5280 4.1.2.5 wants it: two digits for the year through 2049, four from 2050 on.
#[must_use]
pub fn time(at: OffsetDateTime) -> Vec<u8> {
    let at = at.to_offset(time::UtcOffset::UTC);
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(at.month()), at.day(), at.hour(), at.minute(), at.second());
    if (1950..2050).contains(&at.year()) {
        tlv(tag::UTC_TIME, &[format!("{:02}{rest}", at.year().rem_euclid(100)).as_bytes()])
    } else {
        tlv(tag::GENERALIZED_TIME, &[format!("{:04}{rest}", at.year()).as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        assert_eq!(tlv(4, &[&[7; 3]]), [4, 3, 7, 7, 7]);
        assert_eq!(tlv(4, &[&[0; 0x7f]]).get(..2).unwrap(), [4, 0x7f]);
        assert_eq!(tlv(4, &[&[0; 0x80]]).get(..3).unwrap(), [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[&[0; 0x1234]]).get(..4).unwrap(), [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn years_have_two_digits_through_2049() {
        assert_eq!(time(datetime!(2049-12-31 23:59:59 UTC)), b"\x17\x0d491231235959Z");
        assert_eq!(time(datetime!(2050-01-01 00:00:00 UTC)), b"\x18\x0f20500101000000Z");
    }
}
