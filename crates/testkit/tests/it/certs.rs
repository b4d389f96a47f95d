//! An independent parser confirms that the test kit's certificates are as described.

use portcullis_testkit::certs::{Authority, Profile};
use portcullis_testkit::{KeyKind, openssl};

#[test]
fn openssl_reads_and_verifies_what_is_without_fault() {
    let root = Authority::root("example.org");
    let middle = root.below(&Profile::authority("example.org", "CN=intermediate"));
    let dir = std::env::temp_dir().join(format!("portcullis-certs-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("root.pem"), root.bundle_pem()).unwrap();
    for key in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let issued = middle.issue(&Profile { key, ..Profile::leaf("spiffe://example.org/ns/default/sa/web") });
        std::fs::write(dir.join("chain.pem"), issued.cert_pem()).unwrap();
        let path = |name: &str| dir.join(name).into_os_string();
        let chain = path("chain.pem");
        let arguments =
            ["verify".into(), "-CAfile".into(), path("root.pem"), "-untrusted".into(), chain.clone(), chain];
        assert!(String::from_utf8_lossy(&openssl(arguments, b"")).contains(": OK"));
        let text = String::from_utf8(openssl(["x509", "-noout", "-text"], issued.cert_pem().as_bytes())).unwrap();
        assert!(
            text.contains(
                "X509v3 Subject Alternative Name: critical\n                URI:spiffe://example.org/ns/default/sa/web"
            ),
            "{text}"
        );
        assert!(text.contains("X509v3 Key Usage: critical\n                Digital Signature\n"), "{text}");
        assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{text}");
        assert!(text.contains("X509v3 Basic Constraints: critical\n                CA:FALSE"), "{text}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn the_weak_certificates_of_the_tests_are_really_weak() {
    let root = Authority::root("example.org");
    let profile = Profile { sha1: true, key: KeyKind::Rsa1024, ..Profile::leaf("spiffe://example.org/w") };
    let text = openssl(["x509", "-noout", "-text"], root.issue(&profile).cert_pem().as_bytes());
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("Signature Algorithm: ecdsa-with-SHA1"), "{text}");
    assert!(text.contains("Public-Key: (1024 bit)"), "{text}");
}
