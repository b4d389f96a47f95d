//! The roots of one trust domain.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::sync::Arc;

use portcullis_identity::{SvidError, signer};
use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::pem::{self, PemError};

/// One root certificate and when it is valid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Root {
    der: CertificateDer<'static>,
    fingerprint: Arc<String>,
    not_before_unix: i64,
    not_after_unix: i64,
}

impl Root {
    /// First second of validity, in Unix time.
    #[must_use]
    pub const fn not_before_unix(&self) -> i64 {
        self.not_before_unix
    }

    /// Last second of validity, in Unix time.
    #[must_use]
    pub const fn not_after_unix(&self) -> i64 {
        self.not_after_unix
    }

    /// The certificate.
    #[must_use]
    pub const fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The SHA-256 of the certificate in lower-case hexadecimal.
    #[must_use]
    pub const fn fingerprint(&self) -> &Arc<String> {
        &self.fingerprint
    }

    pub(crate) const fn is_valid_at(&self, now: i64) -> bool {
        self.not_before_unix <= now && now <= self.not_after_unix
    }
}

fn fingerprint(der: &[u8]) -> Arc<String> {
    let mut hex = String::with_capacity(64);
    for byte in aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref() {
        let _written = write!(hex, "{byte:02x}");
    }
    Arc::new(hex)
}

/// Why a bundle file is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BundleError {
    /// The file is not a bundle in PEM.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// A certificate in it is not a root.
    #[error("certificate {number}: {error}; a trust bundle holds the root certificates of CAs and nothing else")]
    Root {
        /// Which certificate, from 1.
        number: usize,
        /// What is wrong with it.
        error: SvidError,
    },
    /// Every root has expired.
    #[error("all its {count} root certificates have expired; put the CA's current root into it")]
    Expired {
        /// How many there are.
        count: usize,
    },
    /// No root is valid yet (others may have expired).
    #[error("none of its {count} root certificates is valid yet; check the clock, and who made them")]
    NotYetValid {
        /// How many there are.
        count: usize,
    },
}

impl BundleError {
    /// The stable class of the error.
    #[must_use]
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Pem(error) => error.class(),
            Self::Root { error, .. } => error.class(),
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
        }
    }
}

/// The roots of one trust domain, of which at least one was valid when it was loaded.
///
/// webpki does not check the validity of trust anchors, so that is done here, and again in every handshake: a root is used from
/// its first to its last second of validity.
#[derive(Clone, Debug)]
pub struct TrustBundle {
    roots: Vec<Arc<Root>>,
    /// The same roots in the same order, as trust anchors of webpki.
    anchors: Vec<TrustAnchor<'static>>,
    /// While `now` is in this range, all of them are valid.
    all_valid: RangeInclusive<i64>,
}

impl TrustBundle {
    /// Reads a bundle in PEM. Roots that have expired are left out.
    ///
    /// # Errors
    /// When the file holds anything but roots, or no root that is valid at `now_unix`.
    pub fn from_pem(file: &[u8], now_unix: i64) -> Result<Self, BundleError> {
        Self::from_der(pem::certificates(file)?, now_unix)
    }

    /// Creates a bundle from certificates. Roots that have expired are left out.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), or when there is none.
    pub fn from_der(certificates: Vec<CertificateDer<'static>>, now_unix: i64) -> Result<Self, BundleError> {
        if certificates.is_empty() {
            return Err(PemError::NoBlock { wanted: "CERTIFICATE" }.into());
        }
        let count = certificates.len();
        let mut bundle = Self { roots: Vec::new(), anchors: Vec::new(), all_valid: i64::MIN..=i64::MAX };
        for (index, der) in certificates.into_iter().enumerate() {
            bundle.add(der, now_unix).map_err(|error| BundleError::Root { number: index.saturating_add(1), error })?;
        }
        if bundle.roots.iter().any(|root| root.is_valid_at(now_unix)) {
            Ok(bundle)
        } else if bundle.roots.is_empty() {
            Err(BundleError::Expired { count })
        } else {
            Err(BundleError::NotYetValid { count })
        }
    }

    fn add(&mut self, der: CertificateDer<'static>, now_unix: i64) -> Result<(), SvidError> {
        let validity = signer::check_root(&der)?;
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| SvidError::Der("webpki cannot use it as a root"))?
            .to_owned();
        let root = Root {
            fingerprint: fingerprint(&der),
            der,
            not_before_unix: validity.not_before_unix,
            not_after_unix: validity.not_after_unix,
        };
        if root.not_after_unix < now_unix || self.roots.iter().any(|other| **other == root) {
            return Ok(());
        }
        let (from, until) = (*self.all_valid.start(), *self.all_valid.end());
        self.all_valid = from.max(root.not_before_unix)..=until.min(root.not_after_unix);
        self.roots.push(Arc::new(root));
        self.anchors.push(anchor);
        Ok(())
    }

    /// The roots, valid or not.
    pub fn roots(&self) -> impl Iterator<Item = &Arc<Root>> {
        self.roots.iter()
    }

    /// The anchors that are valid at this time.
    pub(crate) fn anchors_at(&self, now: i64) -> Cow<'_, [TrustAnchor<'static>]> {
        if self.all_valid.contains(&now) {
            return Cow::Borrowed(&self.anchors);
        }
        let valid = self.roots.iter().zip(&self.anchors).filter(|(root, _)| root.is_valid_at(now));
        Cow::Owned(valid.map(|(_, anchor)| anchor.clone()).collect())
    }

    /// Every anchor, valid or not: only to explain a refusal.
    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The root that an anchor was made from.
    pub(crate) fn root_of(&self, anchor: &TrustAnchor<'_>) -> Option<&Arc<Root>> {
        let mut pairs = self.roots.iter().zip(&self.anchors);
        pairs.find(|(_, candidate)| *candidate == anchor).map(|(root, _)| root)
    }

    /// Whether this certificate is one of the roots and valid.
    pub(crate) fn has_valid(&self, root: &Root, now: i64) -> bool {
        root.is_valid_at(now) && self.roots.iter().any(|own| **own == *root)
    }
}
