//! The CA's core: parsing and verifying a request and signing a leaf, compared with the two P-256 operations that this requires.
//! Aim: at least 60 % of the rate of those two alone.
#![allow(clippy::unwrap_used, reason = "a bench that cannot set its scene has failed")]

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use criterion::Criterion;
use portcullis_ca::{CertifiedPublicKey, Root, Signer, SignerFiles};
use portcullis_identity::{SpiffeId, TrustDomain};
use portcullis_tls::Clock;
use rcgen::{CertificateParams, KeyPair};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("signing");
    group.sample_size(30).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(4));

    let day = Duration::from_secs(24 * 3600);
    let root = Root::generate(&TrustDomain::parse("cluster.local").unwrap(), 10 * day, &Clock::system()).unwrap();
    let intermediate = root.intermediate(5 * day).unwrap();
    let (cert, key) = (intermediate.cert_pem(), intermediate.key_pem());
    let files = SignerFiles {
        ca_cert: cert.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.cert_pem().as_bytes(),
        cert_chain: None,
    };
    let signer = Signer::read(files, None, &Clock::system()).unwrap();
    let id = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").unwrap();
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    group.bench_function("request verified, leaf signed, in PEM", |bencher| {
        bencher.iter(|| {
            let key = CertifiedPublicKey::from_csr(black_box(csr.as_bytes())).unwrap();
            signer.sign(black_box(&id), day, &key).unwrap().pem()
        });
    });
    group.bench_function("request verified alone", |bencher| {
        bencher.iter(|| CertifiedPublicKey::from_csr(black_box(csr.as_bytes())).unwrap());
    });

    // As many bytes as the request's and the leaf's signed parts have.
    let (random, message) = (SystemRandom::new(), [7_u8; 400]);
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
    let signature = pair.sign(&random, &message).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
    group.bench_function("raw: P-256 verify and sign", |bencher| {
        bencher.iter(|| {
            public.verify(black_box(&message), signature.as_ref()).unwrap();
            pair.sign(&random, black_box(&message)).unwrap()
        });
    });
    group.finish();
    criterion.final_summary();
}
