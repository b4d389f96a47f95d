//! Verification of a chain: SPIFFE's rules for the leaf, the bundle of the leaf's trust domain, webpki's path building.
//!
//! It is a function of chain, bundles and time. It is used for peers in both directions, for our own certificate before it is
//! used, and to re-authorise live connections.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use portcullis_identity::leaf::{self, Leaf, Role};
use portcullis_identity::{SvidError, TrustDomain, signer};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::bundle::{Root, TrustBundle};
use crate::clock::utc;
use crate::provider::SIGNATURES;
use crate::trust::TrustBundles;

/// The most certificates that a peer may send, the leaf included.
pub const MAX_CHAIN_CERTIFICATES: usize = 10;

/// The most bytes that a chain may have.
pub const MAX_CHAIN_LEN: usize = 64 * 1024;

/// Why a chain is not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// No certificate at all.
    #[error("no certificate was presented; mutual TLS needs one from both sides")]
    NoCertificate,
    /// More certificates or bytes than the limits, or a deeper path than webpki supports.
    #[error(
        "the chain is too long ({certificates} certificates, {bytes} bytes); at most {MAX_CHAIN_CERTIFICATES} and {MAX_CHAIN_LEN}, and 6 intermediates, are allowed"
    )]
    ChainLength {
        /// How many certificates.
        certificates: usize,
        /// How many bytes.
        bytes: usize,
    },
    /// The leaf is not an SVID, or an intermediate may not sign for one.
    #[error(transparent)]
    Svid(#[from] SvidError),
    /// There is no bundle for the leaf's trust domain.
    #[error("trust domain {0} is not trusted here; add it to `mesh.trustDomainAliases` or `mesh.trustBundles`")]
    Domain(TrustDomain),
    /// A CA of one trust domain has signed for an identity of another.
    #[error("an identity of {domain} is signed by a CA of {signer}; only a CA of {domain} may do that")]
    ForeignSigner {
        /// The domain that the leaf claims.
        domain: TrustDomain,
        /// The domain whose bundle has the root.
        signer: TrustDomain,
    },
    /// No root of the right bundle is at the end of the chain.
    #[error("the chain does not lead to a root of the trust bundle for {0}; the other side may use another CA")]
    UnknownIssuer(TrustDomain),
    /// A certificate of the path has expired.
    #[error("expired: {what} was valid until {}, it is {}", utc(*until), utc(*now))]
    Expired {
        /// Which one.
        what: &'static str,
        /// Its last second.
        until: i64,
        /// The time of the verification.
        now: i64,
    },
    /// A certificate of the path is not valid yet.
    #[error("not valid yet: {what} is valid from {}, it is {}; check both clocks", utc(*from), utc(*now))]
    NotYetValid {
        /// Which one.
        what: &'static str,
        /// Its first second.
        from: i64,
        /// The time of the verification.
        now: i64,
    },
    /// Another reason of webpki.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Why webpki does not accept a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// A signature does not verify with the key of the issuer of that name.
    #[error("a signature in the chain is wrong; a CA of the same name with another key may have made it")]
    BadSignature,
    /// SHA-1, a short RSA key, or another algorithm that is not accepted.
    #[error(
        "a certificate in the chain is signed with an algorithm that is not accepted (SHA-1, or one that is unusual)"
    )]
    WeakSignature,
    /// An end-entity certificate that signs another one.
    #[error("a certificate in the chain signs others without being a CA")]
    NotCa,
    /// A path length constraint is broken.
    #[error("a CA in the chain may not have as many CAs below it (pathLenConstraint)")]
    PathLen,
    /// Name constraints are broken, or constrain URIs, which webpki always refuses.
    #[error("the name constraints of a CA in the chain do not allow this identity (URI constraints are not supported)")]
    NameConstraint,
    /// An intermediate's extended key usage.
    #[error("the extended key usage of a CA in the chain does not allow this use")]
    SignerEku,
    /// More signatures or steps than the budget allows.
    #[error("the chain takes too much work to verify")]
    Work,
    /// notBefore after notAfter.
    #[error("a certificate in the chain has a validity that ends before it begins")]
    Validity,
    /// It cannot be read.
    #[error("a certificate in the chain is malformed")]
    Malformed,
}

impl VerifyError {
    /// The stable class of the error, for tests, metrics and JSON.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-cert",
            Self::ChainLength { .. } => "chain-length",
            Self::Svid(error) => error.class(),
            Self::Domain(_) | Self::ForeignSigner { .. } => "td-bundle",
            Self::UnknownIssuer(_) => "unknown-issuer",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::Path(error) => error.class(),
        }
    }
}

impl PathError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(self) -> &'static str {
        match self {
            Self::BadSignature => "bad-signature",
            Self::WeakSignature => "weak-sig",
            Self::NotCa => "not-ca",
            Self::PathLen => "pathlen",
            Self::NameConstraint => "name-constraint",
            Self::SignerEku => "signer-eku",
            Self::Work => "chain-work",
            Self::Validity => "validity",
            Self::Malformed => "der",
        }
    }
}

/// What a verified path depends on, to determine later whether the same chain would still be accepted.
#[derive(Clone, Debug)]
pub struct PathSummary {
    root: Arc<Root>,
    not_after_unix: i64,
}

impl PathSummary {
    /// The last second at which all intermediates and the root are valid, in Unix time. The leaf is not included: a connection
    /// may outlive the certificate that it was opened with.
    #[must_use]
    pub fn not_after_unix(&self) -> i64 {
        self.not_after_unix.min(self.root.not_after_unix())
    }

    /// The root that the path ends at: the SHA-256 of its certificate in lower-case hexadecimal.
    #[must_use]
    pub fn root_fingerprint(&self) -> &Arc<String> {
        self.root.fingerprint()
    }

    /// The last second of the root's validity, in Unix time.
    #[must_use]
    pub fn root_not_after_unix(&self) -> i64 {
        self.root.not_after_unix()
    }
}

impl TrustBundles {
    /// Verifies a chain (leaf first) of a peer in this role at this time, exactly as a handshake does, except for the proof that
    /// the peer holds the private key.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<(Leaf, PathSummary), VerifyError> {
        let (end_entity, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
        verify(self, end_entity, intermediates, role, now).map(|verified| (verified.leaf, verified.path))
    }
}

/// An accepted chain.
#[derive(Clone, Debug)]
pub(crate) struct Verified {
    pub(crate) leaf: Leaf,
    pub(crate) path: PathSummary,
}

/// Verifies the chain of a workload.
pub(crate) fn verify(
    trust: &TrustBundles,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    role: Role,
    now: UnixTime,
) -> Result<Verified, VerifyError> {
    check_size(end_entity, intermediates)?;
    let leaf = leaf::check(end_entity, trust.compat(), role)?;
    let domain = leaf.id.trust_domain();
    let Some(bundle) = trust.bundle(domain.as_str()) else {
        return Err(VerifyError::Domain(domain));
    };
    let chain = Chain { end_entity, intermediates, role, now };
    let now = unix(now);
    match chain.path(&bundle.anchors_at(now), bundle) {
        Ok(path) => Ok(Verified { leaf, path }),
        Err(Failure::Signer(error)) => Err(error.into()),
        Err(Failure::Path(error)) => Err(chain.explain(&error, trust, &domain)),
    }
}

/// Whether a path that was accepted earlier would still be accepted for an identity of this domain.
pub(crate) fn recheck(
    trust: &TrustBundles,
    domain: &str,
    path: &PathSummary,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let Some(bundle) = trust.bundle(domain) else {
        return Err(domain.parse().map_or(VerifyError::NoCertificate, VerifyError::Domain));
    };
    let now = unix(now);
    if path.not_after_unix() < now {
        return Err(VerifyError::Expired { what: "a certificate of the chain", until: path.not_after_unix(), now });
    }
    if bundle.has_valid(&path.root, now) {
        Ok(())
    } else {
        Err(domain.parse().map_or(VerifyError::NoCertificate, VerifyError::UnknownIssuer))
    }
}

fn check_size(end_entity: &[u8], intermediates: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    let certificates = intermediates.len().saturating_add(1);
    let bytes = intermediates.iter().fold(end_entity.len(), |sum, der| sum.saturating_add(der.len()));
    if certificates > MAX_CHAIN_CERTIFICATES || bytes > MAX_CHAIN_LEN {
        return Err(VerifyError::ChainLength { certificates, bytes });
    }
    Ok(())
}

pub(crate) fn unix(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Why no path was found.
enum Failure {
    /// webpki's reason.
    Path(webpki::Error),
    /// There was a path, and one of its intermediates may not sign.
    Signer(SvidError),
}

struct Chain<'c> {
    end_entity: &'c CertificateDer<'c>,
    intermediates: &'c [CertificateDer<'c>],
    role: Role,
    now: UnixTime,
}

impl Chain<'_> {
    /// Builds a path to one of the anchors with webpki, and checks each intermediate of a candidate.
    fn path(&self, anchors: &[TrustAnchor<'_>], bundle: &TrustBundle) -> Result<PathSummary, Failure> {
        let end_entity = EndEntityCert::try_from(self.end_entity).map_err(Failure::Path)?;
        let refused = RefCell::new(None);
        let not_after = Cell::new(i64::MAX);
        let check_signers = |path: &VerifiedPath<'_>| {
            let mut earliest = i64::MAX;
            for signer in path.intermediate_certificates() {
                match signer::check(&signer.der()) {
                    Ok(validity) => earliest = earliest.min(validity.not_after_unix),
                    Err(error) => {
                        *refused.borrow_mut() = Some(error);
                        // The variant is never seen: `refused` is what is reported.
                        return Err(webpki::Error::EndEntityUsedAsCa);
                    }
                }
            }
            not_after.set(earliest);
            Ok(())
        };
        let usage = match self.role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let result = end_entity.verify_for_usage(
            SIGNATURES.all,
            anchors,
            self.intermediates,
            self.now,
            usage,
            None,
            Some(&check_signers),
        );
        let anchor = match result {
            Ok(path) => path.anchor(),
            Err(error) => return Err(refused.take().map_or(Failure::Path(error), Failure::Signer)),
        };
        let Some(root) = bundle.root_of(anchor) else {
            return Err(Failure::Path(webpki::Error::UnknownIssuer));
        };
        Ok(PathSummary { root: Arc::clone(root), not_after_unix: not_after.get() })
    }

    /// Maps webpki's error, and determines more about an unknown issuer.
    fn explain(&self, error: &webpki::Error, trust: &TrustBundles, domain: &TrustDomain) -> VerifyError {
        use webpki::Error;
        let path = match error {
            Error::UnknownIssuer => return self.explain_unknown_issuer(trust, domain),
            Error::CertExpired { time, not_after } => {
                return VerifyError::Expired {
                    what: "a certificate of the chain",
                    until: unix(*not_after),
                    now: unix(*time),
                };
            }
            Error::CertNotValidYet { time, not_before } => {
                return VerifyError::NotYetValid {
                    what: "a certificate of the chain",
                    from: unix(*not_before),
                    now: unix(*time),
                };
            }
            Error::MaximumPathDepthExceeded => {
                let bytes =
                    self.intermediates.iter().fold(self.end_entity.len(), |sum, der| sum.saturating_add(der.len()));
                return VerifyError::ChainLength { certificates: self.intermediates.len().saturating_add(1), bytes };
            }
            Error::InvalidSignatureForPublicKey
            | Error::SignatureAlgorithmMismatch
            | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => PathError::BadSignature,
            Error::UnsupportedSignatureAlgorithmContext(_) => PathError::WeakSignature,
            Error::CaUsedAsEndEntity | Error::EndEntityUsedAsCa => PathError::NotCa,
            Error::PathLenConstraintViolated => PathError::PathLen,
            Error::NameConstraintViolation | Error::MalformedNameConstraint | Error::InvalidNetworkMaskConstraint => {
                PathError::NameConstraint
            }
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => PathError::SignerEku,
            Error::MaximumPathBuildCallsExceeded
            | Error::MaximumSignatureChecksExceeded
            | Error::MaximumNameConstraintComparisonsExceeded => PathError::Work,
            Error::InvalidCertValidity => PathError::Validity,
            _ => PathError::Malformed,
        };
        path.into()
    }

    /// The chain leads to no valid root of its domain's bundle. It may lead to an expired root, or to one of another domain.
    ///
    /// It is refused in any case; this makes the reason precise. webpki's budgets bound the work.
    fn explain_unknown_issuer(&self, trust: &TrustBundles, domain: &TrustDomain) -> VerifyError {
        let now = unix(self.now);
        if let Some(bundle) = trust.bundle(domain.as_str())
            && let Ok(path) = self.path(bundle.anchors(), bundle)
        {
            let root = &path.root;
            return if now < root.not_before_unix() {
                VerifyError::NotYetValid { what: "the root", from: root.not_before_unix(), now }
            } else {
                VerifyError::Expired { what: "the root", until: root.not_after_unix(), now }
            };
        }
        let own = trust.domains().bundle_for(domain.as_str());
        let signer = trust
            .iter()
            .filter(|(name, _)| Some(*name) != own)
            .find(|(_, bundle)| self.path(bundle.anchors(), bundle).is_ok());
        match signer {
            Some((signer, _)) => VerifyError::ForeignSigner { domain: domain.clone(), signer: signer.clone() },
            None => VerifyError::UnknownIssuer(domain.clone()),
        }
    }
}
