//! A cache of verified chains, so that a peer that reconnects is not verified anew.
//!
//! An entry is the answer to a question that has one answer: the same certificates, for the same role, verified with the same
//! bundles, between the time of the verification and the first time at which a certificate of the path expires. That the peer
//! holds the private key is not part of it; each handshake proves that. Refusals are not cached.
//!
//! The cache belongs to one [`Credentials`](crate::Credentials) and is dropped with them: chains that an earlier bundle accepted
//! are verified again.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use portcullis_identity::leaf::Role;
use rustls_pki_types::CertificateDer;

use crate::verify::Verified;

/// The most entries, of a few hundred bytes each. With more peers than this, some are verified again.
const MAX_ENTRIES: usize = 1024;

/// The SHA-256 of a role and all certificates of a chain.
type ChainDigest = [u8; 32];

#[derive(Debug, Default)]
pub(crate) struct VerifiedChainCache(Mutex<HashMap<ChainDigest, Entry>>);

#[derive(Debug)]
struct Entry {
    verified: Verified,
    /// In Unix time. It starts at the verification: if the clock is set back before it, the entry does not count.
    valid: RangeInclusive<i64>,
}

impl VerifiedChainCache {
    /// Returns the cached result for these certificates at `now`, or the result of `verify`.
    ///
    /// # Errors
    /// The error of `verify`.
    pub(crate) fn get_or_verify<E>(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        role: Role,
        now: i64,
        verify: impl FnOnce() -> Result<Verified, E>,
    ) -> Result<Verified, E> {
        let digest = digest(end_entity, intermediates, role);
        if let Some(verified) = self.get(&digest, now) {
            return Ok(verified);
        }
        let verified = verify()?;
        let until = verified.path.not_after_unix().min(verified.leaf.not_after_unix);
        self.insert(digest, Entry { verified: verified.clone(), valid: now..=until });
        Ok(verified)
    }

    fn get(&self, digest: &ChainDigest, now: i64) -> Option<Verified> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(digest)?;
        entry.valid.contains(&now).then(|| entry.verified.clone())
    }

    fn insert(&self, digest: ChainDigest, entry: Entry) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&digest) {
            // Evicts any entry: the map's order is random, so a peer cannot predict which.
            let evicted = entries.keys().next().copied();
            evicted.and_then(|evicted| entries.remove(&evicted));
        }
        entries.insert(digest, entry);
    }
}

fn digest(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], role: Role) -> ChainDigest {
    let mut hash = Context::new(&SHA256);
    hash.update(&[match role {
        Role::Client => 0,
        Role::Server => 1,
    }]);
    for certificate in std::iter::once(end_entity).chain(intermediates) {
        // With their lengths, so that the same bytes split differently are another chain.
        hash.update(&certificate.len().to_be_bytes());
        hash.update(certificate);
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use portcullis_identity::TrustDomain;
    use portcullis_identity::leaf::Compat;
    use portcullis_testkit::certs::{self, Authority, Issued, Profile};
    use rustls_pki_types::UnixTime;

    use super::*;
    use crate::bundle::TrustBundle;
    use crate::trust::TrustBundles;
    use crate::verify::{VerifyError, verify};

    const PEER: &str = "spiffe://example.org/ns/default/sa/peer";

    /// A cache with its bundles, which counts verifications.
    struct CountingVerifier {
        trust: TrustBundles,
        cache: VerifiedChainCache,
        verified: Cell<usize>,
    }

    impl CountingVerifier {
        fn new(ca: &Authority) -> Self {
            let bundle = TrustBundle::from_pem(ca.bundle_pem().as_bytes(), certs::now()).unwrap();
            let trust =
                TrustBundles::new(TrustDomain::parse("example.org").unwrap(), [], bundle, [], Compat::default());
            Self { trust: trust.unwrap(), cache: VerifiedChainCache::default(), verified: Cell::new(0) }
        }

        fn verify(&self, peer: &Issued, role: Role, now: i64) -> Result<String, VerifyError> {
            let (leaf, rest) = peer.chain.split_first().unwrap();
            let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap()));
            let verified = self.cache.get_or_verify(leaf, rest, role, now, || {
                self.verified.set(self.verified.get() + 1);
                verify(&self.trust, leaf, rest, role, time)
            });
            verified.map(|verified| verified.leaf.id.to_string())
        }
    }

    #[test]
    fn a_chain_is_verified_once_per_role_and_a_similar_one_anew() {
        let ca = Authority::root("example.org");
        let (verifier, now) = (CountingVerifier::new(&ca), certs::now());
        let (peer, again) = (ca.workload(PEER), ca.workload(PEER));
        for (peer, role, verified) in [
            (&peer, Role::Client, 1),
            (&peer, Role::Client, 1),
            (&peer, Role::Server, 2),
            (&peer, Role::Client, 2),
            (&again, Role::Client, 3),
        ] {
            assert_eq!(verifier.verify(peer, role, now).unwrap(), PEER);
            assert_eq!(verifier.verified.get(), verified);
        }
    }

    #[test]
    fn an_entry_is_valid_from_its_verification_until_the_chain_expires() {
        let ca = Authority::root("example.org");
        let (verifier, now) = (CountingVerifier::new(&ca), certs::now());
        let peer = ca.issue(&Profile::leaf(PEER).valid(now - 60, now + 100));
        verifier.verify(&peer, Role::Client, now).unwrap();
        verifier.verify(&peer, Role::Client, now + 100).unwrap();
        assert_eq!(verifier.verified.get(), 1, "valid to the end of its last second");
        assert!(matches!(verifier.verify(&peer, Role::Client, now + 101), Err(VerifyError::Expired { .. })));
        verifier.verify(&peer, Role::Client, now - 60).unwrap();
        assert_eq!(verifier.verified.get(), 3, "the clock was set back");
        assert!(matches!(verifier.verify(&peer, Role::Client, now - 61), Err(VerifyError::NotYetValid { .. })));
    }

    #[test]
    fn an_entry_expires_with_an_intermediate() {
        let ca = Authority::root("example.org");
        let (verifier, now) = (CountingVerifier::new(&ca), certs::now());
        let below = ca.below(&Profile::authority("example.org", "CN=short").valid(now - 60, now + 50));
        let peer = below.issue(&Profile::leaf(PEER).valid(now - 60, now + 100));
        verifier.verify(&peer, Role::Client, now).unwrap();
        assert!(matches!(verifier.verify(&peer, Role::Client, now + 51), Err(VerifyError::Expired { .. })));
    }

    #[test]
    fn refusals_and_changed_chains_are_not_cached() {
        let ca = Authority::root("example.org");
        let (verifier, now) = (CountingVerifier::new(&ca), certs::now());
        let stranger = Authority::root("example.org").workload(PEER);
        for _ in 0..2 {
            assert!(verifier.verify(&stranger, Role::Client, now).is_err());
        }
        assert_eq!(verifier.verified.get(), 2);
        let mut peer = ca.workload(PEER);
        verifier.verify(&peer, Role::Client, now).unwrap();
        let mut der = peer.chain.first().unwrap().to_vec();
        *der.last_mut().unwrap() ^= 1;
        peer.chain = vec![der.into()];
        assert!(verifier.verify(&peer, Role::Client, now).is_err(), "another signature");
    }

    #[test]
    fn the_same_bytes_split_differently_are_another_chain() {
        let cut = |parts: &[&[u8]]| {
            let chain: Vec<_> = parts.iter().map(|part| CertificateDer::from(part.to_vec())).collect();
            digest(&chain[0], &chain[1..], Role::Client)
        };
        assert_ne!(cut(&[b"ab", b"c"]), cut(&[b"a", b"bc"]));
        assert_ne!(cut(&[b"abc"]), cut(&[b"abc", b""]));
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let ca = Authority::root("example.org");
        let (verifier, now) = (CountingVerifier::new(&ca), certs::now());
        let peer = ca.workload(PEER);
        verifier.verify(&peer, Role::Client, now).unwrap();
        let verified = verifier.cache.get(&digest(peer.chain.first().unwrap(), &[], Role::Client), now).unwrap();
        for n in 0..=MAX_ENTRIES {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            verifier.cache.insert(digest, Entry { verified: verified.clone(), valid: now..=now });
        }
        assert_eq!(verifier.cache.0.lock().unwrap().len(), MAX_ENTRIES);
    }
}
