//! Digests: of a set of trust bundles, to compare whether two sides trust the same roots, and of the content of a file, to notice
//! that it has changed.

use std::fmt::Write as _;

use aws_lc_rs::digest::{Context, SHA256, digest};
use portcullis_identity::TrustDomain;
use rustls_pki_types::CertificateDer;

use crate::trust::TrustBundles;

/// SHA-256 over a set of bundles: for every trust domain in the order of names its name, a NUL, the number of its roots as
/// u32 big-endian, and the sorted SHA-256 digests of its roots' DER. The order of domains and roots does not
/// matter, and a duplicate root counts once.
#[must_use]
pub fn bundle_digest<'a, R>(bundles: impl IntoIterator<Item = (&'a TrustDomain, R)>) -> String
where
    R: IntoIterator<Item = &'a CertificateDer<'a>>,
{
    let mut domains: Vec<(&TrustDomain, Vec<Vec<u8>>)> = bundles
        .into_iter()
        .map(|(domain, roots)| {
            let mut roots: Vec<Vec<u8>> =
                roots.into_iter().map(|root| digest(&SHA256, root.as_ref()).as_ref().to_vec()).collect();
            roots.sort_unstable();
            roots.dedup();
            (domain, roots)
        })
        .collect();
    domains.sort_unstable();
    let mut whole = Context::new(&SHA256);
    for (domain, roots) in domains {
        whole.update(domain.as_str().as_bytes());
        whole.update(&[0]);
        whole.update(&u32::try_from(roots.len()).unwrap_or(u32::MAX).to_be_bytes());
        for root in roots {
            whole.update(&root);
        }
    }
    whole.finish().as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _written = write!(hex, "{byte:02x}");
        hex
    })
}

impl TrustBundles {
    /// [`bundle_digest`] of this set.
    #[must_use]
    pub fn digest(&self) -> String {
        bundle_digest(self.iter().map(|(domain, bundle)| (domain, bundle.roots().map(|root| root.der()))))
    }
}

/// SHA-256 of the content of a file: what is kept of a private key in order to notice another one.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ContentDigest([u8; 32]);

impl std::fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl ContentDigest {
    /// The digest of this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(sha256(content))
    }
}

/// SHA-256: of the DER of a certificate, its fingerprint.
#[must_use]
pub fn sha256(content: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    // The lengths are equal, so nothing is left out.
    bytes.iter_mut().zip(digest(&SHA256, content).as_ref()).for_each(|(to, from)| *to = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_one_that_the_protocol_defines() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let root = CertificateDer::from(&b"root"[..]);
        let text = bundle_digest([(&domain, [&root])]);
        // printf 'cluster.local\0\0\0\0\1' with the SHA-256 of "root" behind it, through sha256sum.
        assert_eq!(text, "d2fe18b20f17571ca926d3cd0260ea515eb3ee268d5715c298bd04adeb7bf5fe");
    }

    #[test]
    fn the_digest_of_content_is_that_of_sha256sum() {
        let ContentDigest(bytes) = ContentDigest::of(b"abc");
        assert_eq!(bytes[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(bytes[28..], [0xf2, 0x00, 0x15, 0xad]);
    }

    #[test]
    fn order_does_not_count_and_content_does() {
        let [a, b] = ["a.test", "b.test"].map(|name| TrustDomain::parse(name).unwrap());
        let [one, two] = [&b"one"[..], &b"two"[..]].map(CertificateDer::from);
        let sum = bundle_digest([(&a, vec![&one, &two]), (&b, vec![&one])]);
        assert_eq!(sum, bundle_digest([(&b, vec![&one]), (&a, vec![&two, &one])]));
        assert_ne!(sum, bundle_digest([(&b, vec![&two]), (&a, vec![&two, &one])]));
        assert_ne!(sum, bundle_digest([(&a, vec![&one, &two])]));
    }
}
