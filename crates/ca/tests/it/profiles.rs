//! Issued certificates, as our own verifier and openssl read them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portcullis_ca::{CaError, CertifiedPublicKey, Issued, Root, Signer, SignerFiles};
use portcullis_identity::leaf::Compat;
use portcullis_identity::{KeyType, SpiffeId, TrustDomain, signer};
use portcullis_testkit::certs::{Authority, Profile};
use portcullis_testkit::{Key, KeyKind, openssl};
use portcullis_tls::{Clock, CredentialFiles, Credentials, IdentityRules, MinVersion};

const ID: &str = "spiffe://example.org/ns/shop/sa/cart";
const HOUR: Duration = Duration::from_secs(3600);

fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn id() -> SpiffeId {
    SpiffeId::parse(ID).unwrap()
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// What a sidecar does with the three files before it uses them.
fn load(issued: &Issued, bundle: &str) -> Credentials {
    let rules = IdentityRules {
        trust_domain: domain(),
        aliases: Vec::new(),
        expected_own_id: id(),
        compat: Compat::default(),
        min_version: MinVersion::Tls13,
    };
    let (chain, key) = (issued.cert_chain_pem.clone().into(), issued.key_pem.clone().into());
    let files = CredentialFiles::new(chain, key, bundle.into(), Vec::new());
    Credentials::validate(files, &rules, &Clock::system()).unwrap()
}

/// `openssl x509 -text`, without the hexadecimal parts.
fn text(pem: &str) -> String {
    String::from_utf8(openssl(["x509", "-noout", "-text"], pem.as_bytes())).unwrap()
}

/// `openssl verify` in its strictest mode, for one purpose.
fn verify(folder: &Path, purpose: &str) -> String {
    let file = |name: &str| folder.join(name).into_os_string().into_string().unwrap();
    let (root, chain) = (file("root.pem"), file("chain.pem"));
    let arguments = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &root, "-untrusted", &chain, &chain];
    String::from_utf8(openssl(arguments, b"")).unwrap()
}

#[test]
fn a_sidecar_and_openssl_accept_every_kind_of_key() {
    let root = Root::generate(&domain(), 10 * HOUR, &Clock::system()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.pem"), root.cert_pem()).unwrap();
    for (name, key) in KeyType::ALL {
        let issued = root.issue(&id(), HOUR, key).unwrap();
        let credentials = load(&issued, root.cert_pem());
        assert_eq!(credentials.not_after_unix(), issued.not_after_unix, "{name}");
        std::fs::write(folder.path().join("chain.pem"), &issued.cert_chain_pem).unwrap();
        for purpose in ["sslclient", "sslserver"] {
            assert!(verify(folder.path(), purpose).contains(": OK"), "{name}");
        }
    }
}

#[test]
fn the_leaf_profile_as_openssl_reads_it() {
    let root = Root::generate(&domain(), 10 * HOUR, &Clock::system()).unwrap();
    let text = text(&root.issue(&id(), HOUR, KeyType::EcdsaP256).unwrap().cert_chain_pem);
    for part in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Subject: \n",
        "X509v3 Subject Alternative Name: critical\n                URI:spiffe://example.org/ns/shop/sa/cart\n",
        "X509v3 Key Usage: critical\n                Digital Signature\n",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication, TLS Web Client Authentication\n",
        "X509v3 Basic Constraints: critical\n                CA:FALSE\n",
        "X509v3 Subject Key Identifier: \n",
        "X509v3 Authority Key Identifier: \n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(text.matches("            X509v3 ").count(), 6, "and nothing else: {text}");
}

#[test]
fn the_root_profile_as_openssl_reads_it() {
    let created = u64::try_from(now()).unwrap();
    let clock = Clock::shared(Arc::new(AtomicU64::new(created)));
    let root = Root::generate(&domain(), 10 * HOUR, &clock).unwrap();
    let text = text(root.cert_pem());
    for part in [
        "Subject: O = example.org, CN = Portcullis root ",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Basic Constraints: critical\n                CA:TRUE\n",
        "X509v3 Subject Key Identifier: \n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("Extended Key Usage"), "{text}");
    let der = openssl(["x509", "-outform", "DER"], root.cert_pem().as_bytes());
    let signer = signer::check(&der).unwrap();
    assert_eq!(signer.not_before_unix, i64::try_from(created - 60).unwrap(), "backdated by a minute");
}

#[test]
fn the_intermediate_profile_as_openssl_reads_it() {
    let root = Root::generate(&domain(), 10 * HOUR, &Clock::system()).unwrap();
    let text = text(root.intermediate(HOUR).unwrap().cert_pem());
    for part in [
        "Issuer: O = example.org, CN = Portcullis root ",
        "Subject: O = example.org, CN = Portcullis intermediate ",
        "X509v3 Subject Alternative Name: \n                URI:spiffe://example.org\n",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign\n",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0\n",
        "X509v3 Subject Key Identifier: \n",
        "X509v3 Authority Key Identifier: \n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

/// Root, intermediate and leaf of each kind, read back from their files.
#[test]
fn openssl_and_a_sidecar_accept_what_a_ca_of_every_kind_of_key_signs() {
    let folder = tempfile::tempdir().unwrap();
    let csr = CertifiedPublicKey::from_csr(&new_csr(folder.path(), KeyKind::P256)).unwrap();
    for (name, kind) in KeyType::ALL {
        let made = Root::generate_with(kind, &domain(), 10 * HOUR, &Clock::system()).unwrap();
        let root = Root::from_pem(made.cert_pem(), &made.key_pem(), &Clock::system()).unwrap();
        let intermediate = root.intermediate(HOUR).unwrap();
        let key = intermediate.key_pem();
        for pem in [root.cert_pem(), intermediate.cert_pem()] {
            let expected = match kind {
                KeyType::EcdsaP256 => "NIST CURVE: P-256",
                KeyType::EcdsaP384 => "NIST CURVE: P-384",
                KeyType::Rsa2048 => "Public-Key: (2048 bit)",
                KeyType::Rsa3072 => "Public-Key: (3072 bit)",
                KeyType::Rsa4096 => "Public-Key: (4096 bit)",
                KeyType::Ed25519 => "ED25519 Public-Key",
            };
            let text = text(pem);
            assert!(text.contains(expected), "{name}: {text}");
        }
        let files = SignerFiles {
            ca_cert: intermediate.cert_pem().as_bytes(),
            ca_key: key.as_bytes(),
            root_cert: root.cert_pem().as_bytes(),
            cert_chain: None,
        };
        // Reading tries it, by the rules of a sidecar.
        let signer = Signer::read(files, None, &Clock::system()).unwrap();
        let leaf = signer.sign(&id(), HOUR, &csr).unwrap();
        std::fs::write(folder.path().join("root.pem"), root.cert_pem()).unwrap();
        std::fs::write(folder.path().join("chain.pem"), leaf.pem() + &signer.issuer_chain_pem().concat()).unwrap();
        for purpose in ["sslclient", "sslserver"] {
            assert!(verify(folder.path(), purpose).contains(": OK"), "{name}");
        }
    }
}

fn new_csr(folder: &Path, kind: KeyKind) -> Vec<u8> {
    let key = folder.join("key.pem");
    std::fs::write(&key, Key::new(kind).pem()).unwrap();
    openssl(["req", "-new", "-key", key.to_str().unwrap(), "-subj", "/CN=x"], b"")
}

#[test]
fn openssl_accepts_what_the_intermediate_signs_for_every_kind_of_key() {
    let root = Root::generate(&domain(), 10 * HOUR, &Clock::system()).unwrap();
    let intermediate = root.intermediate(HOUR).unwrap();
    let (cert, key) = (intermediate.cert_pem(), intermediate.key_pem());
    let files = SignerFiles {
        ca_cert: cert.as_bytes(),
        ca_key: key.as_bytes(),
        root_cert: root.cert_pem().as_bytes(),
        cert_chain: None,
    };
    let signer = Signer::read(files, None, &Clock::system()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("root.pem"), root.cert_pem()).unwrap();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Rsa2048] {
        let key = CertifiedPublicKey::from_csr(&new_csr(folder.path(), kind)).unwrap();
        let leaf = signer.sign(&id(), HOUR, &key).unwrap();
        std::fs::write(folder.path().join("chain.pem"), leaf.pem() + &signer.issuer_chain_pem().concat()).unwrap();
        for purpose in ["sslclient", "sslserver"] {
            assert!(verify(folder.path(), purpose).contains(": OK"), "{kind:?}");
        }
        let serial = String::from_utf8(openssl(["x509", "-noout", "-serial"], leaf.pem().as_bytes())).unwrap();
        assert_eq!(serial.trim(), format!("serial={}", leaf.serial_text().to_uppercase()));
    }
}

#[test]
fn validity_is_backdated_and_ends_with_the_issuer() {
    let root = Root::generate(&domain(), HOUR, &Clock::system()).unwrap();
    for (ttl, expected) in [(HOUR / 2, 1800), (HOUR, 3600), (100 * HOUR, 3600)] {
        let issued = root.issue(&id(), ttl, KeyType::EcdsaP256).unwrap();
        let leaf = load(&issued, root.cert_pem()).svid().leaf.clone();
        assert!((now() - 62..=now() - 60).contains(&leaf.not_before_unix), "backdated by a minute");
        assert!((now() + expected - 2..=now() + expected).contains(&leaf.not_after_unix), "{ttl:?}");
        assert_eq!(leaf.not_after_unix, issued.not_after_unix);
    }
    // A lifetime beyond any date is an error, not a panic.
    assert!(matches!(root.issue(&id(), Duration::MAX, KeyType::EcdsaP256), Err(CaError::TooLong)));
    assert!(matches!(Root::generate(&domain(), Duration::MAX, &Clock::system()), Err(CaError::TooLong)));
}

#[test]
fn serials_are_positive_long_and_never_the_same() {
    let root = Root::generate(&domain(), HOUR, &Clock::system()).unwrap();
    let mut serials = std::collections::HashSet::new();
    for _ in 0..200 {
        let issued = root.issue(&id(), HOUR, KeyType::EcdsaP256).unwrap();
        let serial = load(&issued, root.cert_pem()).svid().leaf.serial.clone();
        assert_eq!(serial.len(), 16);
        assert!(serial.first().is_some_and(|&first| (0x01..0x80).contains(&first)), "{serial:02x?}");
        assert!(serials.insert(serial));
    }
}

#[test]
fn a_ca_below_a_root_is_sent_along() {
    let above = Authority::root("example.org");
    let below = above.issue(&Profile::authority("example.org", "CN=plugged in"));
    let ca = Root::from_pem(&below.cert_pem(), &below.key_pem(), &Clock::system()).unwrap();
    let issued = ca.issue(&id(), HOUR, KeyType::EcdsaP256).unwrap();
    assert_eq!(issued.cert_chain_pem.matches("BEGIN CERTIFICATE").count(), 2);
    load(&issued, &above.bundle_pem());
    let root = Root::generate(&domain(), HOUR, &Clock::system()).unwrap();
    let read = Root::from_pem(root.cert_pem(), &root.key_pem(), &Clock::system()).unwrap();
    let issued = read.issue(&id(), HOUR, KeyType::EcdsaP256).unwrap();
    assert_eq!(issued.cert_chain_pem.matches("BEGIN CERTIFICATE").count(), 1, "a root is not");
}

#[test]
fn an_expired_or_foreign_ca_is_not_used() {
    let pem = |profile: &Profile| {
        let issued = Authority::root("example.org").issue(profile);
        Root::from_pem(&issued.cert_pem(), &issued.key_pem(), &Clock::system()).unwrap_err()
    };
    let good = || Profile::authority("example.org", "CN=ca");
    assert!(matches!(pem(&good().valid(now() - 100, now() - 1)), CaError::Expired));
    assert!(matches!(pem(&Profile { key_usage: Some(vec![Profile::CRL_SIGN]), ..good() }), CaError::NotCa));
    assert!(matches!(pem(&Profile { basic: None, ..good() }), CaError::NotCa));
    assert!(matches!(pem(&Profile { sans: None, ..good() }), CaError::NoTrustDomain));
}

#[test]
fn no_key_in_debug_output() {
    let root = Root::generate(&domain(), HOUR, &Clock::system()).unwrap();
    let issued = root.issue(&id(), HOUR, KeyType::EcdsaP256).unwrap();
    let shown = format!("{root:?} {issued:?}");
    for key in [root.key_pem(), issued.key_pem] {
        assert!(key.lines().all(|line| !shown.contains(line)), "{shown}");
    }
}
