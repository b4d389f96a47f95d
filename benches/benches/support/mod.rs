//! Credentials of two workloads of one mesh, made anew for each run.
#![allow(dead_code, reason = "each bench uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot set its scene has failed")]

use std::sync::Arc;

use portcullis_identity::leaf::Compat;
use portcullis_identity::{ExpectedIds, SpiffeId, TrustDomain};
use portcullis_testkit::KeyKind;
use portcullis_testkit::certs::{Authority, Profile};
use portcullis_tls::{Clock, CredentialFiles, Credentials, IdentityRules, MinVersion};

pub(crate) const DOMAIN: &str = "cluster.local";
pub(crate) const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A client and a server that trust each other.
pub(crate) struct Mesh {
    pub(crate) web: Arc<Credentials>,
    pub(crate) cart: Arc<Credentials>,
    pub(crate) expected: ExpectedIds,
}

impl Mesh {
    /// Leaves with keys of this kind, below a P-256 root.
    pub(crate) fn new(key: KeyKind) -> Self {
        let ca = Authority::root(DOMAIN);
        let expected = ExpectedIds::new([SpiffeId::parse(CART).unwrap()]).unwrap();
        Self { web: credentials(&ca, WEB, key, &[]), cart: credentials(&ca, CART, key, &[]), expected }
    }
}

/// A workload's credentials; `foreign` are the trust domains that it trusts besides its own.
pub(crate) fn credentials(ca: &Authority, id: &str, key: KeyKind, foreign: &[Authority]) -> Arc<Credentials> {
    let leaf = ca.issue(&Profile { key, ..Profile::leaf(id) });
    let bundle = |(n, ca): (usize, &Authority)| {
        (TrustDomain::parse(&format!("foreign-{n}.test")).unwrap(), ca.bundle_pem().into())
    };
    let files = CredentialFiles::new(
        leaf.cert_pem().into(),
        leaf.key_pem().into(),
        ca.bundle_pem().into(),
        foreign.iter().enumerate().map(bundle).collect(),
    );
    let rules = IdentityRules {
        trust_domain: TrustDomain::parse(DOMAIN).unwrap(),
        aliases: Vec::new(),
        expected_own_id: SpiffeId::parse(id).unwrap(),
        compat: Compat::default(),
        min_version: MinVersion::Tls13,
    };
    Arc::new(Credentials::validate(files, &rules, &Clock::system()).unwrap())
}
