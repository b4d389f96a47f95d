//! Certificates, valid ones and ones with any fault.
//!
//! A [`Profile`] describes a certificate completely, valid or not; [`Authority::issue`] makes and signs it. The
//! constructors give valid profiles, so that a test changes only the field under test:
//!
//! ```
//! use portcullis_testkit::certs::{Authority, Profile};
//!
//! let ca = Authority::root("example.org");
//! let good = ca.workload("spiffe://example.org/ns/default/sa/web");
//! let mut profile = Profile::leaf("spiffe://example.org/ns/default/sa/web");
//! profile.key_usage = Some(vec![Profile::DIGITAL_SIGNATURE, Profile::KEY_CERT_SIGN]);
//! let bad = ca.issue(&profile);
//! assert_eq!(good.chain.len(), 1);
//! assert_ne!(bad.chain, good.chain);
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;

use crate::certs_der::{bit_string, name, named_bits, oid, pem, sequence, tag, time, tlv};
use crate::certs_key::{Key, KeyKind};

/// One subject alternative name.
#[derive(Clone, Debug)]
pub enum San {
    /// A URI, in whatever bytes.
    Uri(Vec<u8>),
    /// A DNS name.
    Dns(String),
    /// A mail address.
    Email(String),
    /// An IPv4 address.
    Ip([u8; 4]),
    /// Any tag and content.
    Raw(u8, Vec<u8>),
}

impl San {
    /// A URI from text.
    #[must_use]
    pub fn uri(text: &str) -> Self {
        Self::Uri(text.into())
    }

    fn der(&self) -> Vec<u8> {
        match self {
            Self::Email(text) => tlv(0x81, text),
            Self::Dns(text) => tlv(0x82, text),
            Self::Uri(bytes) => tlv(0x86, bytes),
            Self::Ip(bytes) => tlv(0x87, bytes),
            Self::Raw(tag, bytes) => tlv(*tag, bytes),
        }
    }
}

/// Basic constraints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Basic {
    /// cA.
    pub ca: bool,
    /// pathLenConstraint.
    pub path_len: Option<u8>,
}

/// An extension beside the usual ones.
#[derive(Clone, Debug)]
pub struct Extra {
    /// Its OID in dotted form.
    pub oid: &'static str,
    /// Whether it is critical.
    pub critical: bool,
    /// Its value.
    pub value: Vec<u8>,
}

/// Everything about a certificate.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The subject as `CN=..` or `O=..`; empty for none.
    pub subject: String,
    /// The subject alternative names; `None` leaves the extension out.
    pub sans: Option<Vec<San>>,
    /// Whether that extension is critical.
    pub san_critical: bool,
    /// How many times that extension occurs.
    pub san_extensions: usize,
    /// Bits of key usage; `None` leaves the extension out.
    pub key_usage: Option<Vec<u8>>,
    /// Whether that extension is critical.
    pub key_usage_critical: bool,
    /// OIDs of extended key usage; `None` leaves the extension out.
    pub extended_key_usage: Option<Vec<&'static str>>,
    /// Basic constraints; `None` leaves the extension out.
    pub basic: Option<Basic>,
    /// First second of validity, in Unix time.
    pub not_before: i64,
    /// Last second of validity, in Unix time.
    pub not_after: i64,
    /// Further extensions.
    pub extra: Vec<Extra>,
    /// Bytes behind the certificate.
    pub trailing: Vec<u8>,
    /// Signed with SHA-1.
    pub sha1: bool,
    /// The key.
    pub key: KeyKind,
}

impl Profile {
    /// Key usage bits.
    pub const DIGITAL_SIGNATURE: u8 = 0;
    /// Key usage bits.
    pub const KEY_ENCIPHERMENT: u8 = 2;
    /// Key usage bits.
    pub const KEY_AGREEMENT: u8 = 4;
    /// Key usage bits.
    pub const KEY_CERT_SIGN: u8 = 5;
    /// Key usage bits.
    pub const CRL_SIGN: u8 = 6;
    /// Extended key usage.
    pub const SERVER_AUTH: &'static str = "1.3.6.1.5.5.7.3.1";
    /// Extended key usage.
    pub const CLIENT_AUTH: &'static str = "1.3.6.1.5.5.7.3.2";
    /// Extended key usage.
    pub const ANY_PURPOSE: &'static str = "2.5.29.37.0";

    /// A workload's certificate without fault, valid from an hour ago to an hour ahead.
    #[must_use]
    pub fn leaf(id: &str) -> Self {
        Self {
            subject: String::new(),
            sans: Some(vec![San::uri(id)]),
            san_critical: true,
            san_extensions: 1,
            key_usage: Some(vec![Self::DIGITAL_SIGNATURE]),
            key_usage_critical: true,
            extended_key_usage: Some(vec![Self::SERVER_AUTH, Self::CLIENT_AUTH]),
            basic: Some(Basic { ca: false, path_len: None }),
            not_before: now() - 3600,
            not_after: now() + 3600,
            extra: Vec::new(),
            trailing: Vec::new(),
            sha1: false,
            key: KeyKind::P256,
        }
    }

    /// A signing certificate of a trust domain without fault, valid from a day ago to a day ahead.
    #[must_use]
    pub fn authority(domain: &str, subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            san_critical: false,
            key_usage: Some(vec![Self::KEY_CERT_SIGN, Self::CRL_SIGN]),
            extended_key_usage: None,
            basic: Some(Basic { ca: true, path_len: None }),
            not_before: now() - 86_400,
            not_after: now() + 86_400,
            ..Self::leaf(&format!("spiffe://{domain}"))
        }
    }

    /// The same, valid in another window.
    #[must_use]
    pub fn valid(mut self, not_before: i64, not_after: i64) -> Self {
        self.not_before = not_before;
        self.not_after = not_after;
        self
    }

    fn extensions(&self) -> Vec<u8> {
        let mut all = Vec::new();
        if let Some(bits) = &self.key_usage {
            all.push(extension("2.5.29.15", self.key_usage_critical, &named_bits(bits)));
        }
        if let Some(purposes) = &self.extended_key_usage {
            all.push(extension("2.5.29.37", false, &sequence(purposes.iter().map(|purpose| oid(purpose)))));
        }
        if let Some(basic) = self.basic {
            let mut parts = Vec::new();
            if basic.ca {
                parts.push(tlv(tag::BOOLEAN, [0xff]));
            }
            if let Some(path_len) = basic.path_len {
                parts.push(tlv(tag::INTEGER, [path_len]));
            }
            all.push(extension("2.5.29.19", true, &sequence(parts)));
        }
        if let Some(sans) = &self.sans {
            let value = sequence(sans.iter().map(San::der));
            all.extend((0..self.san_extensions).map(|_| extension("2.5.29.17", self.san_critical, &value)));
        }
        all.extend(self.extra.iter().map(|extra| extension(extra.oid, extra.critical, &extra.value)));
        tlv(0xa3, sequence(all))
    }
}

fn extension(id: &str, critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(tag::BOOLEAN, [0xff]) } else { Vec::new() };
    sequence([oid(id), critical, tlv(tag::OCTET_STRING, value)])
}

/// The time by the system's clock, in Unix time.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A chain and the key of its first certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificates as they are sent, leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: Key,
}

impl Issued {
    /// The chain as a file.
    #[must_use]
    pub fn cert_pem(&self) -> String {
        self.chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
    }

    /// The key as a file.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.pem()
    }
}

/// A certificate with its key, used to sign others. It need not be fit for that.
#[derive(Clone, Debug)]
pub struct Authority {
    subject: String,
    key: Key,
    /// This certificate and those above it, without the root.
    chain: Vec<CertificateDer<'static>>,
    root: CertificateDer<'static>,
}

impl Authority {
    /// A root of a trust domain.
    #[must_use]
    pub fn root(domain: &str) -> Self {
        Self::self_signed(&Profile::authority(domain, &format!("CN=root of {domain}")))
    }

    /// A self-signed certificate as described.
    #[must_use]
    pub fn self_signed(profile: &Profile) -> Self {
        let key = Key::new(profile.key);
        let root = make(profile, key.spki(), &profile.subject, &key);
        Self { subject: profile.subject.clone(), key, chain: Vec::new(), root }
    }

    /// A signing certificate below this one, as described.
    #[must_use]
    pub fn below(&self, profile: &Profile) -> Self {
        let issued = self.issue(profile);
        Self { subject: profile.subject.clone(), key: issued.key, chain: issued.chain, root: self.root.clone() }
    }

    /// A certificate as described, signed by this authority.
    #[must_use]
    pub fn issue(&self, profile: &Profile) -> Issued {
        let key = Key::new(profile.key);
        let chain = self.certify(profile, key.spki());
        Issued { chain, key }
    }

    /// The same for a key of the caller (its SubjectPublicKeyInfo); `profile.key` is ignored. The chain is
    /// without the root.
    #[must_use]
    pub fn certify(&self, profile: &Profile, spki: Vec<u8>) -> Vec<CertificateDer<'static>> {
        let der = make(profile, spki, &self.subject, &self.key);
        std::iter::once(der).chain(self.chain.iter().cloned()).collect()
    }

    /// A workload's certificate without fault.
    #[must_use]
    pub fn workload(&self, id: &str) -> Issued {
        self.issue(&Profile::leaf(id))
    }

    /// A root with the same name and another key: it can forge what looks like ours until the signature is checked.
    #[must_use]
    pub fn namesake(&self, domain: &str) -> Self {
        Self::self_signed(&Profile::authority(domain, &self.subject))
    }

    /// The root as a bundle file.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        pem("CERTIFICATE", &self.root)
    }

    /// The root.
    #[must_use]
    pub const fn root_der(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The authority's own key, as a file.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.pem()
    }
}

/// Certificates as PEM, one after the other.
#[must_use]
pub fn to_pem(chain: &[CertificateDer<'static>]) -> String {
    chain.iter().map(|der| pem("CERTIFICATE", der)).collect()
}

/// A self-signed leaf, without a CA.
#[must_use]
pub fn self_signed_leaf(profile: &Profile) -> Issued {
    let key = Key::new(profile.key);
    let chain = vec![make(profile, key.spki(), &profile.subject, &key)];
    Issued { chain, key }
}

fn make(profile: &Profile, spki: Vec<u8>, issuer: &str, issuer_key: &Key) -> CertificateDer<'static> {
    static SERIAL: AtomicU64 = AtomicU64::new(0x0100);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let algorithm = issuer_key.algorithm(profile.sha1);
    let to_be_signed = sequence([
        tlv(0xa0, tlv(tag::INTEGER, [2])),
        tlv(tag::INTEGER, [&[0x01], serial.to_be_bytes().as_slice()].concat()),
        algorithm.clone(),
        name(issuer),
        sequence([time(profile.not_before), time(profile.not_after)]),
        name(&profile.subject),
        spki,
        profile.extensions(),
    ]);
    let signature = bit_string(&issuer_key.sign(&to_be_signed, profile.sha1));
    let mut der = sequence([to_be_signed, algorithm, signature]);
    der.extend(&profile.trailing);
    der.into()
}
