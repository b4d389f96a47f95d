//! A whole mTLS 1.3 handshake, both ends on this thread: what a connection costs two sidecars in cryptography, allocation
//! and verification. And verification alone, of a good chain and of chains made to cost as much as they can: the
//! latter must stay far below a second.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench that cannot set its scene has failed")]

mod support;

use std::time::Duration;

use criterion::Criterion;
use portcullis_identity::leaf::Role;
use portcullis_testkit::KeyKind;
use portcullis_testkit::certs::{Authority, Profile};
use portcullis_tls::{Credentials, client, server};
use rustls_pki_types::{CertificateDer, UnixTime};
use support::{CART, DOMAIN, Mesh, WEB, credentials};

/// More than both ends ever have on the way, so that neither waits.
const PIPE: usize = 64 * 1024;

fn handshake(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("handshake");
    for (name, key) in [("ecdsa-p256", KeyKind::P256), ("rsa-2048", KeyKind::Rsa2048)] {
        let mesh = Mesh::new(key);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                runtime.block_on(async {
                    let (near, far) = tokio::io::duplex(PIPE);
                    let (client, server) = tokio::join!(
                        client::connect(near, &mesh.web, &mesh.expected, None),
                        server::accept(far, &mesh.cart)
                    );
                    (client.unwrap(), server.unwrap())
                })
            });
        });
    }
    group.finish();
}

/// The largest number of intermediates in a chain.
const MAX_INTERMEDIATES: usize = 9;
/// The largest number in a path: the search then fails without a reason, and the verifier looks for the chain's domain among
/// all trusted domains.
const MAX_PATH_INTERMEDIATES: usize = 6;

fn verify(criterion: &mut Criterion) {
    let ca = Authority::root(DOMAIN);
    let alone = credentials(&ca, CART, KeyKind::P256, &[]);
    // Ten federated domains: a refusal names the one that a chain belongs to.
    let others: Vec<Authority> = (0..10).map(|n| Authority::root(&format!("foreign-{n}.test"))).collect();
    let federated = credentials(&ca, CART, KeyKind::P256, &others);
    let middle = ca.below(&Profile::authority(DOMAIN, "CN=middle"));

    let mut group = criterion.benchmark_group("verify");
    group.sample_size(10).warm_up_time(Duration::from_millis(500));
    let mut bench = |name: &str, credentials: &Credentials, chain: &[CertificateDer<'static>]| {
        let expected = outcome(credentials, chain);
        group.bench_function(format!("{name} ({expected})"), |bencher| bencher.iter(|| outcome(credentials, chain)));
    };
    bench("leaf below the root", &alone, &ca.workload(WEB).chain);
    bench("leaf below an intermediate", &alone, &middle.workload(WEB).chain);
    for count in [MAX_INTERMEDIATES, MAX_PATH_INTERMEDIATES] {
        let twins = tangled("CN=twin", KeyKind::P256, count);
        bench(&format!("{count} tangled"), &alone, &twins);
        bench(&format!("{count} tangled, 10 foreign domains"), &federated, &twins);
    }
    // They have the root's name, so each looks signed by the root until its signature is checked.
    for (name, key) in [("p256", KeyKind::P256), ("p384", KeyKind::P384), ("rsa2048", KeyKind::Rsa2048)] {
        let namesakes = tangled(&format!("CN=root of {DOMAIN}"), key, MAX_INTERMEDIATES);
        bench(&format!("{MAX_INTERMEDIATES} tangled in the root's name, {name}"), &alone, &namesakes);
    }
    group.finish();
}

fn outcome(credentials: &Credentials, chain: &[CertificateDer<'static>]) -> &'static str {
    let verdict = credentials.trust().verify(chain, Role::Client, UnixTime::now());
    verdict.map_or_else(|error| error.class(), |_| "valid")
}

/// A leaf, and intermediates that all bear the name of their issuer: every order of them is a candidate.
fn tangled(name: &str, key: KeyKind, count: usize) -> Vec<CertificateDer<'static>> {
    let profile = Profile { key, ..Profile::authority(DOMAIN, name) };
    let twin = || Authority::self_signed(&profile).below(&profile).workload(WEB).chain;
    let mut chain = twin();
    chain.extend((1..count).flat_map(|_| twin().into_iter().skip(1)));
    chain
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    handshake(&mut criterion);
    verify(&mut criterion);
    criterion.final_summary();
}
