//! The signing CA, read from a folder with Istio's four files. They may come from any CA.

use std::time::Duration;

use portcullis_identity::leaf::{Compat, Role};
use portcullis_identity::{KeyType, SpiffeId, SvidError, TrustDomain, signer};
use portcullis_tls::{BundleError, Clock, PemError, TrustBundle, TrustBundles, TrustError, VerifyError};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::csr::CertifiedPublicKey;
use crate::error::CaError;
use crate::fields::{anchor_of, trust_domain_of};
use crate::key;
use crate::leaf::{IssuerKey, Leaf, MIN_TTL, ServerName, pem};

/// The contents of the four files, named as Istio names them when an operator plugs in a CA.
#[derive(Clone, Copy)]
pub struct SignerFiles<'a> {
    /// `ca-cert.pem`: the certificate that signs, one.
    pub ca_cert: &'a [u8],
    /// `ca-key.pem`: its key.
    pub ca_key: &'a [u8],
    /// `root-cert.pem`: the roots that workloads are to trust. One of them is at the end of the chain.
    pub root_cert: &'a [u8],
    /// `cert-chain.pem`: from the certificate that signs up to its root, which may be left out. Nothing for a CA right below
    /// its root.
    pub cert_chain: Option<&'a [u8]>,
}

impl std::fmt::Debug for SignerFiles<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignerFiles").finish_non_exhaustive()
    }
}

/// Why a folder holds no CA that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A file is not what it should be in PEM.
    #[error("{file}: {error}")]
    Pem {
        /// Which file.
        file: &'static str,
        /// The problem.
        error: PemError,
    },
    /// More than the certificate that signs.
    #[error("ca-cert.pem: it has {0} certificates, and exactly one signs; those above it belong into cert-chain.pem")]
    OneCertificate(usize),
    /// The roots.
    #[error("root-cert.pem: {0}")]
    Roots(#[from] BundleError),
    /// The certificate may not sign.
    #[error("ca-cert.pem: {0}")]
    Signing(#[from] SvidError),
    /// The key cannot be used.
    #[error("ca-key.pem: the key cannot be used: {0}")]
    Key(rcgen::Error),
    /// The key does not match the certificate.
    #[error("ca-key.pem: it is not the key of the certificate in ca-cert.pem")]
    KeyMismatch,
    /// No trust domain is configured.
    #[error(
        "neither ca-cert.pem nor identities.yaml names a trust domain; write `trustDomain: NAME` into identities.yaml"
    )]
    NoTrustDomain,
    /// Certificate and configuration disagree on the trust domain.
    #[error(
        "ca-cert.pem is of trust domain {found}, and identities.yaml says `trustDomain: {configured}`; one is wrong"
    )]
    TrustDomain {
        /// The trust domain of the certificate.
        found: TrustDomain,
        /// The trust domain of the configuration.
        configured: TrustDomain,
    },
    /// A workload would not accept what it signs.
    #[error("ca-cert.pem, cert-chain.pem and root-cert.pem: a workload would refuse what this CA signs: {0}")]
    Chain(#[from] VerifyError),
    /// It cannot sign.
    #[error("{0}")]
    Ca(#[from] CaError),
    /// The roots make no set of bundles.
    #[error("root-cert.pem: {0}")]
    Trust(#[from] TrustError),
}

/// A CA that signs leaves. Reading it verified that workloads which trust its roots accept its certificates.
pub struct Signer {
    issuer_key: IssuerKey,
    trust_domain: TrustDomain,
    own_id: SpiffeId,
    issuer_chain: Vec<CertificateDer<'static>>,
    issuer_chain_pem: Vec<String>,
    /// The root at the end of the chain, and its SHA-256 in hexadecimal.
    root: CertificateDer<'static>,
    anchor: String,
    roots: TrustBundle,
    roots_pem: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// The first and last second at which a certificate is valid, in Unix time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// The first second.
    pub not_before_unix: i64,
    /// The last second.
    pub not_after_unix: i64,
}

/// The CA's own server certificate, with a new key.
pub struct ServerCertificate {
    /// The chain, leaf first, with the root: a host that joins knows only the root's hash.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// When it is valid.
    pub validity: Validity,
}

impl std::fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCertificate").field("validity", &self.validity).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads a CA, signs a probe with it, and verifies the probe as a workload would: chain, key, purpose, time.
    /// `configured` is the trust domain for a CA whose certificate names none.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(files: SignerFiles<'_>, configured: Option<&TrustDomain>, clock: &Clock) -> Result<Self, SignerError> {
        let certificates = |file, content: &[u8]| {
            portcullis_tls::certificates(content).map_err(|error| SignerError::Pem { file, error })
        };
        let own = match <[_; 1]>::try_from(certificates("ca-cert.pem", files.ca_cert)?) {
            Ok([own]) => own,
            Err(many) => return Err(SignerError::OneCertificate(many.len())),
        };
        signer::check(&own)?;
        let key = portcullis_tls::private_key(files.ca_key)
            .map_err(|error| SignerError::Pem { file: "ca-key.pem", error })?;
        let key = KeyPair::try_from(&*key).map_err(SignerError::Key)?;
        let roots = TrustBundle::from_pem(files.root_cert, clock.now_unix())?;
        let above = files.cert_chain.map(|chain| certificates("cert-chain.pem", chain)).transpose()?;
        // Some write the whole chain into cert-chain.pem, some without its ends.
        let is_root = |der: &CertificateDer<'_>| roots.roots().any(|root| root.der() == der);
        let mut issuer_chain = Vec::new();
        for der in std::iter::once(own.clone()).chain(above.unwrap_or_default()) {
            if !is_root(&der) && !issuer_chain.contains(&der) {
                issuer_chain.push(der);
            }
        }
        let (_, parsed) = X509Certificate::from_der(&own).map_err(|_| CaError::Certificate)?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(SignerError::KeyMismatch);
        }
        let trust_domain = match (trust_domain_of(&parsed).ok(), configured) {
            (Some(found), Some(configured)) if found != *configured => {
                return Err(SignerError::TrustDomain { found, configured: configured.clone() });
            }
            (Some(domain), _) => domain,
            (None, Some(configured)) => configured.clone(),
            (None, None) => return Err(SignerError::NoTrustDomain),
        };
        let issuer_key = IssuerKey::new(&parsed, key, parsed.validity().not_after.to_datetime(), clock.clone())?;
        let mut signer = Self {
            own_id: own_id(&trust_domain)?,
            issuer_chain_pem: issuer_chain.iter().map(|der| pem(der)).collect(),
            roots_pem: roots.roots().map(|root| pem(root.der())).collect(),
            root: own,
            anchor: String::new(),
            issuer_key,
            trust_domain,
            issuer_chain,
            roots,
        };
        let (ends, root) = signer.probe(clock)?;
        signer.anchor = anchor_of(&root);
        signer.root = root;
        signer.issuer_key.not_after = signer.issuer_key.not_after.min(ends);
        Ok(signer)
    }

    /// Signs a throwaway key and verifies the result. Returns when the whole path expires, and the root that it leads to.
    fn probe(&self, clock: &Clock) -> Result<(OffsetDateTime, CertificateDer<'static>), SignerError> {
        let key = key::generate(KeyType::EcdsaP256).map_err(CaError::Make)?;
        let leaf = self.issuer_key.workload(&self.own_id, &key.subject_public_key_info(), MIN_TTL)?;
        let chain: Vec<_> =
            std::iter::once(CertificateDer::from(leaf.der)).chain(self.issuer_chain.iter().cloned()).collect();
        let trust = TrustBundles::new(self.trust_domain.clone(), [], self.roots.clone(), [], Compat::default())?;
        let now = clock.now();
        trust.verify(&chain, Role::Client, now)?;
        let (_, path) = trust.verify(&chain, Role::Server, now)?;
        let ends = OffsetDateTime::from_unix_timestamp(path.not_after_unix()).map_err(|_| CaError::TooLong)?;
        for root in self.roots.roots() {
            let alone = TrustBundle::from_pem(pem(root.der()).as_bytes(), clock.now_unix())?;
            let alone = TrustBundles::new(self.trust_domain.clone(), [], alone, [], Compat::default())?;
            if alone.verify(&chain, Role::Server, now).is_ok() {
                return Ok((ends, root.der().clone()));
            }
        }
        // Only if it ended just now.
        Err(CaError::Expired.into())
    }

    /// Signs an X.509-SVID for a key. The lifetime is at least a minute, and ends with this CA at the latest.
    ///
    /// # Errors
    /// If the ID does not belong to this CA's trust domain, or the CA has expired.
    pub fn sign(&self, id: &SpiffeId, ttl: Duration, key: &CertifiedPublicKey) -> Result<Leaf, CaError> {
        if id.domain_str() != self.trust_domain.as_str() {
            return Err(CaError::ForeignId { id: id.clone(), trust_domain: self.trust_domain.clone() });
        }
        if id.path().is_empty() {
            return Err(CaError::NoPath(id.clone()));
        }
        if *id == self.own_id {
            return Err(CaError::OwnId(id.clone()));
        }
        self.issuer_key.workload(id, key.spki(), ttl)
    }

    /// Makes a server certificate for this CA itself, with a new key.
    ///
    /// # Errors
    /// If the CA has expired, or no key can be made.
    pub fn server_certificate(&self, names: &[ServerName], ttl: Duration) -> Result<ServerCertificate, CaError> {
        let key = key::generate(KeyType::EcdsaP256)?;
        let leaf = self.issuer_key.server(&self.own_id, names, &key.subject_public_key_info(), ttl)?;
        let above = self.issuer_chain.iter().chain([&self.root]).cloned();
        Ok(ServerCertificate {
            chain: std::iter::once(CertificateDer::from(leaf.der)).chain(above).collect(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            validity: Validity { not_before_unix: leaf.not_before_unix, not_after_unix: leaf.not_after_unix },
        })
    }

    /// The trust domain that this CA issues for.
    #[must_use]
    pub const fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The CA's own identity. No workload can have it.
    #[must_use]
    pub const fn own_id(&self) -> &SpiffeId {
        &self.own_id
    }

    /// The certificates that follow a leaf, each in PEM: this CA's certificate and those above it, without the root.
    #[must_use]
    pub fn issuer_chain_pem(&self) -> &[String] {
        &self.issuer_chain_pem
    }

    /// The roots that workloads are to trust.
    #[must_use]
    pub const fn roots(&self) -> &TrustBundle {
        &self.roots
    }

    /// The same in PEM, one after the other.
    #[must_use]
    pub fn roots_pem(&self) -> &str {
        &self.roots_pem
    }

    /// The root that what this CA signs leads to: the SHA-256 of its certificate in hexadecimal.
    #[must_use]
    pub fn anchor(&self) -> &str {
        &self.anchor
    }

    /// Last second at which this CA can sign for, in Unix time: its own end, or that of a certificate above it.
    #[must_use]
    pub const fn not_after_unix(&self) -> i64 {
        self.issuer_key.not_after.unix_timestamp()
    }

    /// Whether the root's key is online. An attacker who takes it can impersonate any workload for as long as the root is trusted.
    #[must_use]
    pub fn signs_as_root(&self) -> bool {
        self.issuer_chain.is_empty()
    }
}

/// `spiffe://TD/ns/portcullis-system/sa/ca`.
fn own_id(trust_domain: &TrustDomain) -> Result<SpiffeId, CaError> {
    SpiffeId::for_workload(trust_domain, "portcullis-system", "ca").map_err(|_| CaError::NoOwnId(trust_domain.clone()))
}

#[cfg(test)]
mod tests;
