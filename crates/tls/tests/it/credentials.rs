//! Our own files: what is accepted, and what is said about the rest.

use crate::common::{DOMAIN, ME, WEB, credentials, files, rules, still_clock, td, validate};
use portcullis_testkit::certs::{Authority, Issued, Profile, now};
use portcullis_testkit::{Key, KeyKind, openssl};
use portcullis_tls::{
    CredentialError, CredentialFiles, CredentialStore, Credentials, FileRole, MAX_FILE_LEN, Unavailable,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn ca() -> Authority {
    Authority::root(DOMAIN)
}

/// Validates three files and returns the error.
fn error(certificate: &[u8], key: &[u8], bundle: &[u8]) -> CredentialError {
    let files = CredentialFiles::new(certificate.to_vec(), key.to_vec(), bundle.to_vec(), Vec::new());
    validate(files, &rules(ME)).unwrap_err()
}

/// The error of a bundle beside a certificate and a key without fault.
fn bundle_error(bundle: impl AsRef<[u8]>) -> CredentialError {
    let own = ca().workload(ME);
    let error = error(own.cert_pem().as_bytes(), own.key_pem().as_bytes(), bundle.as_ref());
    assert_eq!(error.file(), Some(FileRole::TrustBundle), "{error}");
    assert!(error.to_string().starts_with("trustBundle: "), "{error}");
    error
}

fn key_error(key: impl AsRef<[u8]>) -> CredentialError {
    let ca = ca();
    let error = error(ca.workload(ME).cert_pem().as_bytes(), key.as_ref(), ca.bundle_pem().as_bytes());
    assert_eq!(error.file(), Some(FileRole::PrivateKey), "{error}");
    assert!(error.to_string().starts_with("privateKey: "), "{error}");
    error
}

#[test]
fn bundle_empty_file() {
    assert_eq!(bundle_error("").class(), "pem");
    let text = bundle_error("").to_string();
    assert!(text.contains("empty"), "{text}");
}

#[test]
fn bundle_key_in_file() {
    let ca = ca();
    for key in [ca.key_pem(), "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n".into()] {
        for bundle in [format!("{}{key}", ca.bundle_pem()), format!("{key}{}", ca.bundle_pem()), key.clone()] {
            let error = bundle_error(bundle);
            assert_eq!(error.class(), "pem");
            assert!(error.to_string().contains("PRIVATE KEY"), "{error}");
        }
    }
}

#[test]
fn bundle_root_not_ca() {
    let ca = ca();
    let leaf = ca.workload(WEB).cert_pem();
    assert_eq!(bundle_error(&leaf).class(), "not-ca");
    let error = bundle_error(format!("{}{leaf}", ca.bundle_pem()));
    assert_eq!(error.class(), "not-ca");
    assert!(error.to_string().contains("certificate 2"), "{error}");
}

#[test]
fn a_bundle_is_certificates_in_pem_and_nothing_else() {
    let ca = ca();
    let whole = ca.bundle_pem();
    assert_eq!(bundle_error(ca.root_der()).class(), "pem", "DER");
    assert_eq!(bundle_error("hello\n").class(), "pem");
    assert_eq!(bundle_error(&whole[..whole.len() / 2]).class(), "pem", "half a file");
    assert_eq!(bundle_error(format!("{whole}{}", &whole[..whole.len() - 10])).class(), "pem", "one and a half");
    assert_eq!(bundle_error(whole.replace("MII", "M!I")).class(), "pem");
    assert_eq!(bundle_error(whole.replace("CERTIFICATE", "TRUSTED CERTIFICATE")).class(), "pem");
    assert_eq!(bundle_error(whole.replace("-----BEGIN", "  -----BEGIN")).class(), "pem", "would be skipped");
    assert_eq!(bundle_error(vec![b'\n'; MAX_FILE_LEN + 1]).class(), "file-too-large");
    let commented = format!("# the root of example.org\nsubject=CN = x\n{}\r\n\r\n", whole.replace('\n', "\r\n"));
    validate(files(&ca.workload(ME), &commented), &rules(ME)).unwrap();
}

#[test]
fn expired_roots_are_dropped_and_a_bundle_of_them_is_an_error() {
    let old = Authority::self_signed(&Profile::authority(DOMAIN, "CN=old").valid(now() - 100, now() - 10));
    let next = Authority::self_signed(&Profile::authority(DOMAIN, "CN=next").valid(now() + 100, now() + 1000));
    assert_eq!(bundle_error(old.bundle_pem()).class(), "expired");
    assert_eq!(bundle_error(next.bundle_pem()).class(), "not-yet-valid");
    assert_eq!(bundle_error(format!("{}{}", old.bundle_pem(), next.bundle_pem())).class(), "not-yet-valid");
    let current = ca();
    let all = [old.bundle_pem(), next.bundle_pem(), current.bundle_pem(), current.bundle_pem()].concat();
    let credentials = validate(files(&current.workload(ME), &all), &rules(ME)).unwrap();
    let roots: Vec<_> = credentials.trust().bundle(DOMAIN).unwrap().roots().collect();
    assert_eq!(roots.len(), 2, "the old one is gone, the repeated one counts once");
    assert_eq!(credentials.warnings().len(), 1);
    let text = credentials.warnings().first().unwrap().to_string();
    assert!(text.starts_with("trustBundle: a root is not valid before"), "{text}");
}

#[test]
fn svid_own_key_mismatch() {
    let error = key_error(Key::new(KeyKind::P256).pem());
    assert_eq!(error, CredentialError::KeyMismatch);
    assert_eq!(error.class(), "own-key");
    assert_eq!(key_error(Key::new(KeyKind::Ed25519).pem()), CredentialError::KeyMismatch, "another kind");
}

#[test]
fn svid_own_id_mismatch() {
    let ca = ca();
    let error = validate(files(&ca.workload(WEB), &ca.bundle_pem()), &rules(ME)).unwrap_err();
    assert_eq!((error.class(), error.file()), ("own-id", Some(FileRole::Certificate)));
    assert!(error.to_string().contains(WEB) && error.to_string().contains(ME), "{error}");
}

#[test]
fn our_own_certificate_is_verified_like_a_peers() {
    let ca = ca();
    let class = |issued: &Issued| validate(files(issued, &ca.bundle_pem()), &rules(ME)).unwrap_err().class();
    let leaf = || Profile::leaf(ME);
    assert_eq!(class(&ca.issue(&leaf().valid(now() - 100, now() - 10))), "expired");
    assert_eq!(class(&ca.issue(&leaf().valid(now() + 100, now() + 200))), "not-yet-valid");
    assert_eq!(class(&Authority::root("partner.test").workload(ME)), "unknown-issuer");
    assert_eq!(class(&ca.issue(&Profile { extended_key_usage: Some(vec![Profile::SERVER_AUTH]), ..leaf() })), "eku");
    assert_eq!(class(&ca.issue(&Profile { sans: None, ..leaf() })), "no-uri-san");
    let partner = ca.workload("spiffe://partner.test/ns/default/sa/me");
    assert_eq!(class(&partner), "td-bundle", "before it is compared with the expected identity");
}

#[test]
fn with_the_relaxation_one_purpose_is_enough_for_ourselves() {
    let ca = ca();
    let mut rules = rules(ME);
    rules.compat.eku = true;
    for purpose in [Profile::SERVER_AUTH, Profile::CLIENT_AUTH] {
        let issued = ca.issue(&Profile { extended_key_usage: Some(vec![purpose]), ..Profile::leaf(ME) });
        validate(files(&issued, &ca.bundle_pem()), &rules).unwrap();
    }
    let none = ca.issue(&Profile { extended_key_usage: Some(vec![Profile::ANY_PURPOSE]), ..Profile::leaf(ME) });
    assert_eq!(validate(files(&none, &ca.bundle_pem()), &rules).unwrap_err().class(), "eku");
}

#[test]
fn keys_in_every_common_form() {
    let ca = ca();
    for (kind, form) in [
        (KeyKind::P256, Some(("ec", "EC PRIVATE KEY"))),
        (KeyKind::P384, Some(("ec", "EC PRIVATE KEY"))),
        (KeyKind::Rsa2048, Some(("rsa", "RSA PRIVATE KEY"))),
        (KeyKind::Ed25519, None),
    ] {
        let issued = ca.issue(&Profile { key: kind, ..Profile::leaf(ME) });
        validate(files(&issued, &ca.bundle_pem()), &rules(ME)).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let Some((command, label)) = form else {
            continue;
        };
        let traditional: &[&str] = if command == "rsa" { &["rsa", "-traditional"] } else { &["ec"] };
        let old = openssl(traditional, issued.key_pem().as_bytes());
        assert!(String::from_utf8_lossy(&old).contains(label));
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        let old = [parameters.as_bytes(), &old].concat();
        let files = CredentialFiles::new(issued.cert_pem().into(), old, ca.bundle_pem().into(), Vec::new());
        validate(files, &rules(ME)).unwrap_or_else(|error| panic!("{kind:?} as {label}: {error}"));
    }
}

#[test]
fn what_is_no_key_is_said_to_be_none() {
    let key = Key::new(KeyKind::P256).pem();
    let encrypted = openssl(["pkcs8", "-topk8", "-passout", "pass:secret"], key.as_bytes());
    let old = openssl(["ec", "-aes128", "-passout", "pass:secret"], key.as_bytes());
    for encrypted in [encrypted, old] {
        let error = key_error(&encrypted);
        assert!(error.class() == "pem" && error.to_string().contains("encrypted"), "{error}");
    }
    assert_eq!(key_error("").class(), "pem");
    assert_eq!(key_error(ca().bundle_pem()).class(), "pem");
    assert_eq!(key_error(format!("{key}{key}")).class(), "pem");
    assert_eq!(key_error(&key[..key.len() - 30]).class(), "pem");
    assert_eq!(key_error(format!("{key}{}", ca().bundle_pem())).class(), "pem");
    assert_eq!(key_error("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").class(), "key");
    let p521 = Key::new(KeyKind::P521).pem();
    assert!(["key", "own-key"].contains(&key_error(p521).class()));
}

#[test]
fn what_is_no_certificate_is_said_to_be_none() {
    let ca = ca();
    let own = ca.workload(ME);
    let check = |certificate: &str| {
        let error = error(certificate.as_bytes(), own.key_pem().as_bytes(), ca.bundle_pem().as_bytes());
        assert_eq!(error.file(), Some(FileRole::Certificate), "{error}");
        assert!(error.to_string().starts_with("certificate: "), "{error}");
        error.class()
    };
    assert_eq!(check(""), "pem");
    assert_eq!(check("hello"), "pem");
    assert_eq!(check(&own.key_pem()), "pem", "the files were mixed up");
    assert_eq!(check(&format!("{}{}", own.cert_pem(), own.key_pem())), "pem");
    assert_eq!(check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "der");
    assert_eq!(check(&own.cert_pem().repeat(11)), "chain-length");
    assert_eq!(check(&ca.bundle_pem()), "leaf-no-path", "a root in its place");
}

#[test]
fn federated_bundles_are_named_by_their_domain() {
    let ca = ca();
    let own = ca.workload(ME);
    let with = |federated: Vec<(&str, String)>| {
        let federated = federated.into_iter().map(|(domain, bundle)| (td(domain), bundle.into_bytes())).collect();
        let (certificate, key) = (own.cert_pem().into(), own.key_pem().into());
        validate(CredentialFiles::new(certificate, key, ca.bundle_pem().into(), federated), &rules(ME))
    };
    let partner = Authority::root("partner.test").bundle_pem();
    with(vec![("partner.test", partner.clone())]).unwrap();
    let error = with(vec![("partner.test", String::new())]).unwrap_err();
    assert_eq!(error.file(), Some(FileRole::Federated(td("partner.test"))));
    assert!(error.to_string().starts_with("trustBundles[partner.test]: "), "{error}");
    assert_eq!(with(vec![(DOMAIN, partner.clone())]).unwrap_err().class(), "trust-domains");
    assert_eq!(with(vec![("a.test", partner.clone()), ("a.test", partner)]).unwrap_err().class(), "trust-domains");
}

#[test]
fn no_secret_in_debug_output() {
    let ca = ca();
    let own = ca.workload(ME);
    let files = files(&own, &ca.bundle_pem());
    let pem = own.key_pem();
    let secret = pem.lines().nth(1).unwrap();
    let before = format!("{files:?}");
    let credentials = validate(files, &rules(ME)).unwrap();
    let after = format!("{credentials:?} {:?}", credentials.svid());
    for text in [before, after] {
        assert!(!text.contains(secret) && !text.contains("PRIVATE"), "{text}");
    }
    assert!(format!("{credentials:?}").contains(ME));
    let mismatch = key_error(&pem);
    assert!(!format!("{mismatch:?} {mismatch}").contains(secret));
}

#[test]
fn a_store_gives_the_newest_and_nothing_that_has_expired() {
    let ca = ca();
    let (clock, seconds) = still_clock();
    let start = clock.now_unix();
    let make = |until: i64| {
        let issued = ca.issue(&Profile::leaf(ME).valid(start - 10, until));
        Credentials::validate(files(&issued, &ca.bundle_pem()), &rules(ME), &clock).unwrap()
    };
    let (mut store, reader) = CredentialStore::new();
    let mut changes = reader.subscribe();
    assert_eq!(reader.current().unwrap_err(), Unavailable::NotLoaded);
    assert_eq!((reader.generation(), changes.has_changed().unwrap()), (0, false));

    assert_eq!(store.publish(make(start + 60)), 1);
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let first = reader.current().unwrap();
    assert_eq!((first.generation(), first.not_after_unix()), (1, start + 60));

    assert_eq!(store.publish(make(start + 120)), 2);
    assert!(changes.has_changed().unwrap());
    assert_eq!((reader.clone().current().unwrap().generation(), reader.generation()), (2, 2));
    assert_eq!(first.generation(), 1, "a connection keeps what it took");

    seconds.store(u64::try_from(start + 120).unwrap(), Ordering::Release);
    reader.current().unwrap();
    seconds.store(u64::try_from(start + 121).unwrap(), Ordering::Release);
    assert_eq!(reader.current().unwrap_err(), Unavailable::Expired { not_after_unix: start + 120 });
    assert!(reader.latest().unwrap().is_expired());
}

#[test]
fn a_ca_that_expires_before_our_certificate_is_warned_about() {
    let root = Authority::self_signed(&Profile::authority(DOMAIN, "CN=short").valid(now() - 10, now() + 60));
    let credentials = validate(files(&root.workload(ME), &root.bundle_pem()), &rules(ME)).unwrap();
    assert!(credentials.not_after_unix() <= now() + 60);
    assert!(credentials.warnings().first().unwrap().to_string().contains("expires first"));
    assert!(crate::common::credentials(&ca(), ME).warnings().is_empty());
}

#[test]
fn credentials_are_shared_between_threads() {
    fn check<T: Send + Sync>(_: &T) {}
    let ours: Arc<Credentials> = credentials(&ca(), ME);
    check(&ours);
}
