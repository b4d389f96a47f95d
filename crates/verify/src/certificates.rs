//! Certificates of the attempts: made for one run, with one fault each as far as the keys at hand allow.

use std::sync::Arc;

use portcullis_der::{self as der, NULL, oid, tag};
use portcullis_identity::SpiffeId;
use portcullis_identity::leaf::{self, Compat, Role};
use portcullis_tls::{PemError, certificates, private_key, provider};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is not what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The certificate is no SVID, so it proves no identity.
    #[error("certificate 1: {0}")]
    Svid(#[from] portcullis_identity::SvidError),
    /// The key is not that of the certificate, or of a kind that cannot be used.
    #[error("the private key does not fit the certificate, or is of a kind that is not supported: {0}")]
    Key(String),
    /// A CA certificate cannot be read.
    #[error("the first certificate cannot be read as that of a CA")]
    Ca,
    /// A certificate could not be made.
    #[error("a certificate for an attempt could not be made: {0}")]
    Make(String),
}

impl From<rcgen::Error> for CertificateError {
    fn from(error: rcgen::Error) -> Self {
        Self::Make(error.to_string())
    }
}

/// The credentials of a workload that is to be let in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    pub(crate) key: Arc<CertifiedKey>,
}

impl Identity {
    /// From a chain and a key in PEM. Whether the chain is valid is what the server is to say.
    ///
    /// # Errors
    /// If a file cannot be read, the first certificate is no SVID, or the key is another one's.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let (chain, key) = (certificates(chain)?, private_key(key)?);
        let id = leaf::check(chain.first().ok_or(CertificateError::Ca)?, RELAXED, Role::Client)?.id;
        let key = certified(chain, key.clone_key())?;
        key.keys_match().map_err(|error| CertificateError::Key(error.to_string()))?;
        Ok(Self { id, key: Arc::new(key) })
    }
}

/// A foreign CA may have its own habits; the server says whether it takes them.
pub(crate) const RELAXED: Compat = Compat { eku: true, ku_critical: true };

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertificateError> {
    let key =
        provider().key_provider.load_private_key(key).map_err(|error| CertificateError::Key(error.to_string()))?;
    Ok(CertifiedKey::new(chain, key))
}

/// The key of a CA: with it, an attempt's certificate has no fault but its own.
pub struct CaKey(Issuer);

impl std::fmt::Debug for CaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaKey").finish_non_exhaustive()
    }
}

impl CaKey {
    /// From the CA's certificate and key in PEM.
    ///
    /// # Errors
    /// If they cannot be read, or do not belong together.
    pub fn from_pem(certificate: &[u8], key: &str) -> Result<Self, CertificateError> {
        let chain = certificates(certificate)?;
        let key = KeyPair::from_pem(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let first = chain.first().ok_or(CertificateError::Ca)?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|_| CertificateError::Ca)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(CertificateError::Key("it is the key of another certificate".to_owned()));
        }
        let name = parsed.subject().as_raw().to_vec();
        // A root is not sent; an intermediate is.
        let is_root = parsed.subject().as_raw() == parsed.issuer().as_raw();
        let chain = if is_root { Vec::new() } else { chain };
        Ok(Self(Issuer { name, key, chain }))
    }
}

struct Issuer {
    /// The Name in DER.
    name: Vec<u8>,
    key: KeyPair,
    /// What follows the leaf.
    chain: Vec<CertificateDer<'static>>,
}

/// Makes the certificates of one run.
pub(crate) struct Forge<'a> {
    pub(crate) now: OffsetDateTime,
    pub(crate) ca: Option<&'a CaKey>,
}

const OUTSIDER: &str = "ns/portcullis-verify/sa/outsider";

impl Forge<'_> {
    /// An identity of the server's own trust domain, by a CA that nobody knows.
    pub(crate) fn wrong_ca(&self, domain: &str) -> Result<CertifiedKey, CertificateError> {
        let issuer = self.new_ca(common_name("portcullis verify"))?;
        self.leaf(&issuer, &format!("spiffe://{domain}/{OUTSIDER}"), self.valid())
    }

    /// An identity that ended an hour ago; `server` is the server's certificate, whose issuer is named if its key is not at hand.
    pub(crate) fn expired(&self, id: &str, server: Option<&[u8]>) -> Result<CertifiedKey, CertificateError> {
        let hour = Duration::HOUR;
        self.by_the_servers_ca(id, server, Validity { from: self.now - hour * 2, to: self.now - hour })
    }

    /// An identity of a trust domain that does not exist, likewise.
    pub(crate) fn wrong_identity(&self, server: Option<&[u8]>) -> Result<CertifiedKey, CertificateError> {
        self.by_the_servers_ca(&format!("spiffe://wrong.invalid/{OUTSIDER}"), server, self.valid())
    }

    /// An identity for the trust domain where nothing else is known.
    pub(crate) fn outsider(domain: &str) -> String {
        format!("spiffe://{domain}/{OUTSIDER}")
    }

    fn valid(&self) -> Validity {
        Validity { from: self.now - Duration::HOUR, to: self.now + Duration::HOUR }
    }

    fn by_the_servers_ca(
        &self,
        id: &str,
        server: Option<&[u8]>,
        validity: Validity,
    ) -> Result<CertifiedKey, CertificateError> {
        if let Some(CaKey(issuer)) = self.ca {
            return self.leaf(issuer, id, validity);
        }
        let parsed = server.and_then(|der| X509Certificate::from_der(der).ok());
        let name = parsed.map_or_else(|| common_name("portcullis verify"), |(_, leaf)| leaf.issuer().as_raw().to_vec());
        self.leaf(&self.new_ca(name)?, id, validity)
    }

    fn new_ca(&self, name: Vec<u8>) -> Result<Issuer, CertificateError> {
        let mut issuer = Issuer { name, key: new_key()?, chain: Vec::new() };
        let ca = der::tlv(tag::BOOLEAN, &[&[0xff]]);
        // keyCertSign and cRLSign are bits 5 and 6, and one bit is unused.
        let usage = der::tlv(tag::BIT_STRING, &[&[1, 0x06]]);
        let extensions = [
            der::extension(oid::BASIC_CONSTRAINTS, true, &der::sequence(&[&ca])),
            der::extension(oid::KEY_USAGE, true, &usage),
        ];
        let spki = issuer.key.subject_public_key_info();
        let root = self.sign(&issuer, &issuer.name, &spki, &extensions.concat(), self.valid())?;
        issuer.chain = vec![root];
        Ok(issuer)
    }

    fn leaf(&self, issuer: &Issuer, id: &str, validity: Validity) -> Result<CertifiedKey, CertificateError> {
        let key = new_key()?;
        let name = der::tlv(0x86, &[id.as_bytes()]);
        // digitalSignature is bit 0, and seven bits are unused.
        let usage = der::tlv(tag::BIT_STRING, &[&[7, 0x80]]);
        let extensions = [
            der::extension(oid::SUBJECT_ALT_NAME, true, &der::sequence(&[&name])),
            der::extension(oid::KEY_USAGE, true, &usage),
            der::extension(oid::EXTENDED_KEY_USAGE, false, &der::sequence(&[oid::SERVER_AUTH, oid::CLIENT_AUTH])),
            der::extension(oid::BASIC_CONSTRAINTS, true, &der::sequence(&[])),
        ];
        let spki = key.subject_public_key_info();
        let leaf = self.sign(issuer, &der::sequence(&[]), &spki, &extensions.concat(), validity)?;
        let chain = std::iter::once(leaf).chain(issuer.chain.iter().cloned()).collect();
        certified(chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    fn sign(
        &self,
        issuer: &Issuer,
        subject: &[u8],
        spki: &[u8],
        extensions: &[u8],
        validity: Validity,
    ) -> Result<CertificateDer<'static>, CertificateError> {
        let algorithm = algorithm(&issuer.key)?;
        let serial: [u8; 8] = random()?;
        let tbs = der::sequence(&[
            &der::tlv(tag::VERSION, &[&[tag::INTEGER, 1, 2]]),
            // A first byte that is positive and not zero.
            &der::tlv(tag::INTEGER, &[&[0x41], &serial]),
            &algorithm,
            &issuer.name,
            &der::sequence(&[&der::time(validity.from), &der::time(validity.to)]),
            subject,
            spki,
            &der::tlv(tag::EXTENSIONS, &[&der::sequence(&[extensions])]),
        ]);
        let signature = issuer.key.sign(&tbs)?;
        Ok(der::sequence(&[&tbs, &algorithm, &der::bit_string(&signature)]).into())
    }
}

#[derive(Clone, Copy)]
struct Validity {
    from: OffsetDateTime,
    to: OffsetDateTime,
}

fn new_key() -> Result<KeyPair, CertificateError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], CertificateError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CertificateError::Make("there are no random bytes".to_owned()))?;
    Ok(bytes)
}

/// The Name `CN=...`.
fn common_name(text: &str) -> Vec<u8> {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    let attribute = der::sequence(&[COMMON_NAME, &der::tlv(tag::UTF8_STRING, &[text.as_bytes()])]);
    der::sequence(&[&der::tlv(tag::SET, &[&attribute])])
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>, CertificateError> {
    let known: [(&rcgen::SignatureAlgorithm, &[&[u8]]); 4] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[oid::ECDSA_SHA256]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[oid::ECDSA_SHA384]),
        (&rcgen::PKCS_RSA_SHA256, &[oid::RSA_SHA256, NULL]),
        (&rcgen::PKCS_ED25519, &[oid::ED25519]),
    ];
    let found = known.into_iter().find(|(algorithm, _)| *algorithm == key.algorithm());
    let unknown = || CertificateError::Key("the CA's key is of a kind that cannot sign here".to_owned());
    found.map(|(_, parts)| der::sequence(parts)).ok_or_else(unknown)
}
