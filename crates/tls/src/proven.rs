//! Chains that have been verified with the credentials in force, so that a peer that comes again is not verified anew.
//!
//! What is kept is the answer to a question that has one answer: the same certificates, for the same role, judged by the same
//! bundles, between the moment they were accepted and the first moment at which anything of the path ends. That the peer
//! holds the key is not part of it: that is proven in each handshake. Refusals are not kept.
//!
//! It belongs to one [`Credentials`](crate::Credentials) and goes with them: what was accepted by an earlier bundle is
//! verified again by the next.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use portcullis_identity::leaf::Role;
use rustls_pki_types::CertificateDer;

use crate::verify::Verified;

/// Chains that are kept, of a few hundred bytes each. Whoever has more peers than this verifies some of them again.
const MOST: usize = 1024;

/// The SHA-256 of a role and all certificates of a chain.
type Key = [u8; 32];

#[derive(Debug, Default)]
pub(crate) struct Proven(Mutex<HashMap<Key, Proof>>);

#[derive(Debug)]
struct Proof {
    verified: Verified,
    /// In Unix time, both included. A clock that was set back to before the proof is no reason to believe it.
    valid: (i64, i64),
}

impl Proven {
    /// What these certificates are known to prove at `now`, or what `verify` finds that they do.
    ///
    /// # Errors
    /// Whatever `verify` gives.
    pub(crate) fn or_verify<E>(
        &self,
        (end_entity, intermediates): (&CertificateDer<'_>, &[CertificateDer<'_>]),
        role: Role,
        now: i64,
        verify: impl FnOnce() -> Result<Verified, E>,
    ) -> Result<Verified, E> {
        let key = key(end_entity, intermediates, role);
        if let Some(known) = self.known(&key, now) {
            return Ok(known);
        }
        let verified = verify()?;
        let until = verified.path.not_after_unix().min(verified.leaf.not_after_unix);
        self.keep(key, Proof { verified: verified.clone(), valid: (now, until) });
        Ok(verified)
    }

    fn known(&self, key: &Key, now: i64) -> Option<Verified> {
        let proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = proofs.get(key)?;
        (proof.valid.0 <= now && now <= proof.valid.1).then(|| proof.verified.clone())
    }

    fn keep(&self, key: Key, proof: Proof) {
        let mut proofs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if proofs.len() >= MOST && !proofs.contains_key(&key) {
            // Any one: the map's order is random, and nobody outside can tell which it is.
            let any = proofs.keys().next().copied();
            any.and_then(|any| proofs.remove(&any));
        }
        proofs.insert(key, proof);
    }
}

fn key(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>], role: Role) -> Key {
    let mut hash = Context::new(&SHA256);
    hash.update(&[match role {
        Role::Client => 0,
        Role::Server => 1,
    }]);
    for certificate in std::iter::once(end_entity).chain(intermediates) {
        // With their lengths, so that the same bytes cut differently are another chain.
        hash.update(&certificate.len().to_be_bytes());
        hash.update(certificate);
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
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

    /// Bundles, what they have proven, and how often that took work.
    struct Judge {
        trust: TrustBundles,
        proven: Proven,
        verified: Cell<usize>,
    }

    impl Judge {
        fn new(ca: &Authority) -> Self {
            let bundle = TrustBundle::from_pem(ca.bundle_pem().as_bytes(), certs::now()).unwrap();
            let trust =
                TrustBundles::new(TrustDomain::parse("example.org").unwrap(), [], bundle, [], Compat::default());
            Self { trust: trust.unwrap(), proven: Proven::default(), verified: Cell::new(0) }
        }

        fn judge(&self, peer: &Issued, role: Role, now: i64) -> Result<String, VerifyError> {
            let (leaf, rest) = peer.chain.split_first().unwrap();
            let time = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap()));
            let verified = self.proven.or_verify((leaf, rest), role, now, || {
                self.verified.set(self.verified.get() + 1);
                verify(&self.trust, leaf, rest, role, time)
            });
            verified.map(|verified| verified.leaf.id.to_string())
        }
    }

    #[test]
    fn a_chain_is_verified_once_for_each_role_and_an_equal_one_is_another() {
        let ca = Authority::root("example.org");
        let (judge, now) = (Judge::new(&ca), certs::now());
        let (peer, again) = (ca.workload(PEER), ca.workload(PEER));
        for (peer, role, verified) in [
            (&peer, Role::Client, 1),
            (&peer, Role::Client, 1),
            (&peer, Role::Server, 2),
            (&peer, Role::Client, 2),
            (&again, Role::Client, 3),
        ] {
            assert_eq!(judge.judge(peer, role, now).unwrap(), PEER);
            assert_eq!(judge.verified.get(), verified);
        }
    }

    #[test]
    fn what_has_expired_or_lies_before_the_proof_is_verified_again() {
        let ca = Authority::root("example.org");
        let (judge, now) = (Judge::new(&ca), certs::now());
        let peer = ca.issue(&Profile::leaf(PEER).valid(now - 60, now + 100));
        judge.judge(&peer, Role::Client, now).unwrap();
        judge.judge(&peer, Role::Client, now + 100).unwrap();
        assert_eq!(judge.verified.get(), 1, "valid to the end of its last second");
        assert!(matches!(judge.judge(&peer, Role::Client, now + 101), Err(VerifyError::Expired { .. })));
        judge.judge(&peer, Role::Client, now - 60).unwrap();
        assert_eq!(judge.verified.get(), 3, "the clock was set back");
        assert!(matches!(judge.judge(&peer, Role::Client, now - 61), Err(VerifyError::NotYetValid { .. })));
    }

    #[test]
    fn the_end_of_a_signer_ends_the_proof() {
        let ca = Authority::root("example.org");
        let (judge, now) = (Judge::new(&ca), certs::now());
        let below = ca.below(&Profile::authority("example.org", "CN=short").valid(now - 60, now + 50));
        let peer = below.issue(&Profile::leaf(PEER).valid(now - 60, now + 100));
        judge.judge(&peer, Role::Client, now).unwrap();
        assert!(matches!(judge.judge(&peer, Role::Client, now + 51), Err(VerifyError::Expired { .. })));
    }

    #[test]
    fn refusals_and_changed_chains_are_never_known() {
        let ca = Authority::root("example.org");
        let (judge, now) = (Judge::new(&ca), certs::now());
        let stranger = Authority::root("example.org").workload(PEER);
        for _ in 0..2 {
            assert!(judge.judge(&stranger, Role::Client, now).is_err());
        }
        assert_eq!(judge.verified.get(), 2);
        let mut peer = ca.workload(PEER);
        judge.judge(&peer, Role::Client, now).unwrap();
        let mut der = peer.chain.first().unwrap().to_vec();
        *der.last_mut().unwrap() ^= 1;
        peer.chain = vec![der.into()];
        assert!(judge.judge(&peer, Role::Client, now).is_err(), "another signature");
    }

    #[test]
    fn the_same_bytes_cut_differently_are_another_chain() {
        let cut = |parts: &[&[u8]]| {
            let chain: Vec<_> = parts.iter().map(|part| CertificateDer::from(part.to_vec())).collect();
            key(&chain[0], &chain[1..], Role::Client)
        };
        assert_ne!(cut(&[b"ab", b"c"]), cut(&[b"a", b"bc"]));
        assert_ne!(cut(&[b"abc"]), cut(&[b"abc", b""]));
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() {
        let ca = Authority::root("example.org");
        let (judge, now) = (Judge::new(&ca), certs::now());
        let peer = ca.workload(PEER);
        judge.judge(&peer, Role::Client, now).unwrap();
        let verified = judge.proven.known(&key(peer.chain.first().unwrap(), &[], Role::Client), now).unwrap();
        for n in 0..=MOST {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            judge.proven.keep(key, Proof { verified: verified.clone(), valid: (now, now) });
        }
        assert_eq!(judge.proven.0.lock().unwrap().len(), MOST);
    }
}
