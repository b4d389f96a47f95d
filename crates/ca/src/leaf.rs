//! The leaf profiles: an X.509-SVID for a workload, and the server certificate of the CA itself.
//!
//! Both are CA:FALSE by a constant; no parameter can change that. Their name is an ID that the caller
//! has authenticated, never a name from a request.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use portcullis_der::{self as der, NULL, oid, tag};
use portcullis_identity::SpiffeId;
use portcullis_tls::Clock;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use time::OffsetDateTime;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

use crate::error::CaError;
use crate::fields::{BACKDATE, after, now, serial};

/// Shortest lifetime of a leaf.
pub const MIN_TTL: Duration = Duration::from_secs(60);

/// A CA's signing key, with the issuer fields of its leaves.
pub(crate) struct IssuerKey {
    key: KeyPair,
    /// The Name, byte for byte as it stands in the CA's own certificate.
    name: Vec<u8>,
    key_id: Vec<u8>,
    /// AlgorithmIdentifier of its signatures.
    algorithm: Vec<u8>,
    /// Nothing that it signs may be valid for longer.
    pub(crate) not_after: OffsetDateTime,
    clock: Clock,
}

/// A certificate that was signed, without those behind it.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub der: Vec<u8>,
    /// Its serial number, big-endian.
    pub serial: [u8; 16],
    /// First second of its validity, in Unix time.
    pub not_before_unix: i64,
    /// Last second of its validity, in Unix time.
    pub not_after_unix: i64,
}

impl Leaf {
    /// The certificate in PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem(&self.der)
    }

    /// The serial number as `openssl` prints it, in lower case.
    #[must_use]
    pub fn serial_text(&self) -> String {
        crate::hex::text(&self.serial)
    }
}

/// The names that a server certificate is found under, besides its SPIFFE ID.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerName {
    /// A DNS name, in lower case.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl ServerName {
    /// Reads a DNS name (RFC 1123) or an IP address.
    ///
    /// # Errors
    /// The expected form, if it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |label: &str| {
            let inner = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            inner && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) && !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            Ok(Self::Dns(text.to_owned()))
        } else {
            Err("not a DNS name in lower case, such as portcullis-ca or ca.example.org, nor an IP address".to_owned())
        }
    }

    /// A GeneralName (RFC 5280 4.2.1.6).
    fn der(&self) -> Vec<u8> {
        match self {
            Self::Dns(name) => der::tlv(0x82, &[name.as_bytes()]),
            Self::Ip(IpAddr::V4(ip)) => der::tlv(0x87, &[&ip.octets()]),
            Self::Ip(IpAddr::V6(ip)) => der::tlv(0x87, &[&ip.octets()]),
        }
    }
}

impl IssuerKey {
    pub(crate) fn new(
        certificate: &X509Certificate<'_>,
        key: KeyPair,
        not_after: OffsetDateTime,
        clock: Clock,
    ) -> Result<Self, CaError> {
        let given = certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        // RFC 7093 2, method 1; for a foreign CA that has no identifier of its own.
        let computed = || digest::digest(&digest::SHA256, key.der_bytes()).as_ref().iter().take(20).copied().collect();
        Ok(Self {
            key_id: given.unwrap_or_else(computed),
            name: certificate.subject().as_raw().to_vec(),
            algorithm: algorithm_of(&key)?,
            not_after,
            clock,
            key,
        })
    }

    /// The current time.
    pub(crate) fn now(&self) -> Result<OffsetDateTime, CaError> {
        now(&self.clock)
    }

    pub(crate) const fn key(&self) -> &KeyPair {
        &self.key
    }

    /// Signs an X.509-SVID.
    pub(crate) fn workload(&self, id: &SpiffeId, spki: &[u8], ttl: Duration) -> Result<Leaf, CaError> {
        self.sign(&[der::tlv(0x86, &[id.as_str().as_bytes()])], spki, ttl)
    }

    /// Signs the CA's own server certificate: an X.509-SVID that has DNS names and addresses too.
    pub(crate) fn server(
        &self,
        id: &SpiffeId,
        names: &[ServerName],
        spki: &[u8],
        ttl: Duration,
    ) -> Result<Leaf, CaError> {
        let id = der::tlv(0x86, &[id.as_str().as_bytes()]);
        let names: Vec<_> = names.iter().map(ServerName::der).chain([id]).collect();
        self.sign(&names, spki, ttl)
    }

    fn sign(&self, names: &[Vec<u8>], spki: &[u8], ttl: Duration) -> Result<Leaf, CaError> {
        let now = self.now()?;
        if self.not_after <= after(now, Duration::from_secs(1))? {
            return Err(CaError::Expired);
        }
        let (not_before, not_after) = (now - BACKDATE, after(now, ttl.max(MIN_TTL))?.min(self.not_after));
        let serial = serial()?;
        let tbs = der::sequence(&[
            &der::tlv(tag::VERSION, &[&[tag::INTEGER, 1, 2]]),
            &der::tlv(tag::INTEGER, &[&serial]),
            &self.algorithm,
            &self.name,
            &der::sequence(&[&der::time(not_before), &der::time(not_after)]),
            // The subject is empty: the identity is in the alternative name, which is critical for that reason.
            &der::sequence(&[]),
            spki,
            &der::tlv(tag::EXTENSIONS, &[&self.extensions(names, spki)]),
        ]);
        let signature = self.key.sign(&tbs)?;
        Ok(Leaf {
            der: der::sequence(&[&tbs, &self.algorithm, &der::bit_string(&signature)]),
            serial,
            not_before_unix: not_before.unix_timestamp(),
            not_after_unix: not_after.unix_timestamp(),
        })
    }

    fn extensions(&self, names: &[Vec<u8>], spki: &[u8]) -> Vec<u8> {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let key_id = der::tlv(0x80, &[&self.key_id]);
        // The beginning of the key hash that the audit has (RFC 7093 2, method 4).
        let own_id: Vec<u8> = digest::digest(&digest::SHA256, spki).as_ref().iter().take(20).copied().collect();
        // digitalSignature is bit 0, and seven bits are unused.
        let digital_signature = der::tlv(tag::BIT_STRING, &[&[7, 0x80]]);
        der::sequence(&[
            &der::extension(oid::SUBJECT_ALT_NAME, true, &der::sequence(&names)),
            &der::extension(oid::KEY_USAGE, true, &digital_signature),
            &der::extension(oid::EXTENDED_KEY_USAGE, false, &der::sequence(&[oid::SERVER_AUTH, oid::CLIENT_AUTH])),
            // An empty sequence: cA is FALSE by default, and DER does not write defaults.
            &der::extension(oid::BASIC_CONSTRAINTS, true, &der::sequence(&[])),
            &der::extension(oid::SUBJECT_KEY_ID, false, &der::tlv(tag::OCTET_STRING, &[&own_id])),
            &der::extension(oid::AUTHORITY_KEY_ID, false, &der::sequence(&[&key_id])),
        ])
    }
}

fn algorithm_of(key: &KeyPair) -> Result<Vec<u8>, CaError> {
    let known: [(&rcgen::SignatureAlgorithm, &[&[u8]]); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[oid::ECDSA_SHA256]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[oid::ECDSA_SHA384]),
        (&rcgen::PKCS_RSA_SHA256, &[oid::RSA_SHA256, NULL]),
        (&rcgen::PKCS_ED25519, &[oid::ED25519]),
    ];
    let own = key.algorithm();
    let found = known.into_iter().find(|(algorithm, _)| *algorithm == own);
    found.map(|(_, parts)| der::sequence(parts)).ok_or(CaError::KeyKind)
}

/// A certificate in PEM.
#[must_use]
pub fn pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}
